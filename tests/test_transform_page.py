"""The page of the dbt models: what is on it, and whether people can read it."""

from __future__ import annotations

import html
import json
import subprocess
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from chromium import require_chromium
from modelled import page_of
from parts import ROOT
from warehouses import VENVS

if TYPE_CHECKING:
    from pathlib import Path

    from modelled import History

pytestmark = pytest.mark.e2e


def test_the_page_shows_every_account_its_amount_and_its_status(history: History) -> None:
    text = history.page.read_text(encoding="utf-8")
    totals = {row[0]: Decimal(str(row[6])) for row in history.builds[-1].latest}
    assert text.count("<article") == len(history.builds[-1].runway)
    for account, status, *_ in history.builds[-1].runway:
        card = text.split(f"<h2>{html.escape(str(account))} <", 1)[1].split("</article>", 1)[0]
        assert f" {status}: " in card
        assert f">{totals[account]:,.4f} " in card
        assert "<svg " in card
        assert ("unknown how long it lasts" in card) == (status == "stale")
        assert "until" not in card or status in {"ok", "low", "critical"}
    assert "have a chart" not in text


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_the_page_says_that_not_all_accounts_have_a_chart(history: History) -> None:
    path = page_of(history.warehouse, history.folder, history.builds[-1].as_of, charts=2)
    text = path.read_text(encoding="utf-8")
    assert "Only the first 2 of 50 accounts have a chart." in text
    assert text.count("<svg ") == 2


@pytest.fixture(scope="session")
def chromium() -> str:
    return require_chromium()


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_the_page_is_readable_without_network_on_a_phone_in_the_dark_and_without_colour(
    history: History, chromium: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            VENVS / "browser" / "bin" / "python",
            ROOT / "tests" / "support" / "look_at_page.py",
            chromium,
            history.page,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert [seen[reader]["width"] for reader in ("desk", "phone", "dark")] == [1100, 360, 360]
    assert seen["phone"]["paper"] > 0.9
    assert seen["dark"]["paper"] < 0.05
    for reader in seen.values():
        assert reader["requests"] == 1  # the file itself
        assert reader["complaints"] == []
        assert reader["least_contrast"] >= 4.5
        assert reader["least_contrast_of_charts"] >= 4.5
        assert reader["smallest_letters"] >= 11
    signs = {
        "empty": "■",
        "critical": "▲",
        "low": "◆",
        "stale": "?",
        "accumulating": "…",
        "ok": "✓",
    }
    status_of = {str(row[0]): str(row[1]) for row in history.builds[-1].runway}
    assert len(seen["dark"]["statuses"]) == 50
    for account, line in seen["dark"]["statuses"]:
        assert line.startswith(f"{signs[status_of[account]]} {status_of[account]}: ")
    # Two days of a05 are unknown at the end; 75 hours of a11 in the midst break its line.
    charts = seen["phone"]["charts"]
    topped_up = sum(
        1
        for row in history.builds[-1].daily
        if row[0] == "a11" and row[11] not in {None, "0"} and str(row[3]) > "2026-01-01"
    )
    assert charts["a11"]["triangles"] == topped_up > 0
    assert charts["a11"]["label"] == f"Balance of a11 by day; {topped_up} days with a top-up"
    assert charts["a11"]["lines"][0][0] == 2
    assert charts["a32"]["lines"][1][1] == "4,4"
    # A single day is a dot; what is stale leads to no end.
    assert [charts[account]["dots"] for account in ("a11", "a40")] == [0, 1]
    assert len(charts["a05"]["lines"]) == 1
