"""The page of the dbt models: every number on it, and whether people can read and use it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
from base64 import b64decode
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import history as demo_history
import pytest
from chromium import require_chromium
from found import DAY, SIGNS, span
from modelled import PAGE_MADE_AT, page_of
from page_tables import data_of, parse
from parts import ROOT, VENVS
from warehouses import dbt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from found import Found
    from modelled import History
    from page_tables import Element
    from warehouses import InPostgres

pytestmark = pytest.mark.e2e

on_postgres = pytest.mark.parametrize("history", ["postgres"], indirect=True)


def money(amount10000: int, currency: str | None) -> str:
    places = 0 if currency == "JPY" else 2
    exact = Decimal(amount10000) / 10_000
    rounded = exact.quantize(Decimal(10) ** -places, ROUND_HALF_UP)
    shown = f"{exact:,.4f}" if exact and not rounded else f"{rounded:,f}"
    return f"{shown} {currency or ''}".strip()


def exact(amount10000: int, currency: str | None) -> str:
    return f"{Decimal(amount10000) / 10_000:,.4f} {currency or ''}".strip()


def spent(found: dict[str, Found], currency: str, first: date, last: date) -> int:
    return sum(
        entry.amounts[0]
        for one in found.values()
        for code, day, entry in one.every_day
        if code == currency and first <= day <= last and entry.amounts
    )


def texts(rows: Iterable[Iterable[Element]]) -> list[list[str]]:
    return [[cell.text for cell in row] for row in rows]


def test_every_account_on_the_page_is_what_python_finds(
    history: History, found: dict[str, Found]
) -> None:
    page = parse(history.page.read_text(encoding="utf-8"))
    rows = {row[0].raw.rsplit(" ", 1)[0].strip(): row for row in page.one("table", id="table").rows}
    assert rows.keys() == found.keys()
    assert len(rows) == 50
    for name, row in rows.items():
        one = found[name]
        left, per_day, age = one.row.total, one.runway.per_day, PAGE_MADE_AT - one.row.at
        assert [cell.text for cell in row] == [
            f"{name} {one.row.product}",
            one.status,
            money(left, one.currency),
            "not known yet" if per_day is None else money(per_day, one.currency),
            one.runs_out,
            "",
            span(age),
        ]
        if one.row.gift:
            paid, gift = (exact(amount, one.currency) for amount in (one.row.paid, one.row.gift))
            assert row[2].titles == [f"{exact(left, one.currency)}: paid {paid}, gift {gift}"]
        assert set(row[3].titles) <= {exact(per_day or 0, one.currency)}
    urgency = [list(SIGNS.values()).index(row[1].text[0]) for row in rows.values()]
    assert urgency == sorted(urgency)


def test_every_number_of_the_first_screen_is_what_python_finds(
    history: History, found: dict[str, Found]
) -> None:
    page = parse(history.page.read_text(encoding="utf-8"))
    counts = Counter(one.runway.status for one in found.values())
    surges = sum("surge" in one.status for one in found.values())
    assert [item.text for item in page.one("ul", class_="counts").all("li")] == [
        *(f"{sign} {counts[status]} {status}" for status, sign in SIGNS.items()),
        *([f"! {surges} surge"] if surges else []),
        "50 in all",
    ]
    expected = []
    for currency in ("USD", "JPY", "EUR"):
        own = [one for one in found.values() if one.currency == currency]
        this = spent(found, currency, date(2026, 3, 1), date(2026, 3, 31))
        last = spent(found, currency, date(2026, 2, 1), date(2026, 2, 28))
        percent = round((Decimal(this) / last - 1) * 100)
        expected.append([
            f"{currency} {len(own)} accounts",
            money(sum(one.row.total for one in own), currency),
            money(sum(one.runway.per_day or 0 for one in own), currency),
            money(this, currency),
            money(last, currency),
            f"{abs(percent)}% {'more' if percent > 0 else 'less'}",
        ])  # fmt: skip
    totals = page.one("table", class_="totals")
    head = [cell.text for cell in totals.all("th", scope="col")]
    assert head[3:5] == ["Spent 1–31 Mar", "Spent 1–28 Feb"]  # noqa: RUF001
    assert sorted(texts(totals.rows)) == sorted(expected)


def test_the_timeline_and_the_list_to_top_up_are_what_python_finds(
    history: History, found: dict[str, Found]
) -> None:
    page = parse(history.page.read_text(encoding="utf-8"))
    ends = sorted((one.end, name) for name, one in found.items() if one.end)
    today = date(2026, 4, 1)
    by_day = Counter((end.date() - today).days for end, _ in ends)
    days = page.one("ol", class_="days").all("li")
    assert [day.one("b").text for day in days] == [str(by_day[k] or "") for k in range(14)]
    assert [item.text for item in page.one("ol", class_="first").all("li")] == [
        f"{name} {found[name].runs_out}" for _, name in ends[:8]
    ]
    to_top_up = {name: one for name, one in found.items() if one.runway.top_up}
    section = page.one("section", class_="top-ups")
    assert {row[0]: row[1:] for row in texts(section.one("table").rows)} == {
        name: [
            one.status,
            money(one.row.total, one.currency),
            money(one.runway.top_up or 0, one.currency),
        ]
        for name, one in to_top_up.items()
    }
    sums = dict.fromkeys(("USD", "EUR", "JPY"), 0)
    for one in to_top_up.values():
        if one.runway.status in {"empty", "critical"}:
            sums[one.currency or ""] += one.runway.top_up or 0
    assert sorted(section.one("span", class_="sum").text.split(" + ")) == sorted(
        money(amount, currency) for currency, amount in sums.items()
    )
    href = section.one("a", class_="download").attributes["href"] or ""
    text = b64decode(href.partition("base64,")[2]).decode("utf-8-sig")
    # A name that begins like a formula is text for a spreadsheet.
    assert {
        row["account"].removeprefix("'"): (row["currency"], row["total_balance"], row["top_up"])
        for row in csv.DictReader(io.StringIO(text))
    } == {
        name: (one.currency, one.row.row[-1], f"{Decimal(one.runway.top_up or 0) / 10000:.4f}")
        for name, one in to_top_up.items()
    }
    assert "\n'=it's <b" in text or "=it's" not in text


def test_the_histories_are_what_python_finds(history: History, found: dict[str, Found]) -> None:
    page = parse(history.page.read_text(encoding="utf-8"))
    data = data_of(page)
    names = [row[0].raw.rsplit(" ", 1)[0].strip() for row in page.one("table", id="table").rows]
    first_day = date.fromisoformat(data["firstDay"])
    assert first_day == date(2026, 4, 1) - 119 * DAY
    for name, account in zip(names, data["accounts"], strict=True):
        left: int | None = None
        for place, rise in enumerate(account["rise"]):
            entry = found[name].days.get(first_day + place * DAY)
            amounts = entry.amounts if entry else None
            spend, gift = account["spend"][place], account["gift"][place]
            assert (spend, account["topUp"][place], gift) == (
                (amounts[0], amounts[1], amounts[3]) if amounts else (None, None, None)
            )
            if rise is None:
                assert not entry or not entry.changes
                continue
            assert entry
            left = (left or 0) + rise - (spend or 0) - (gift or 0)
            assert left == entry.changes[-1].row.total
        assert left == found[name].row.total


def look(chromium: str, page: Path, folder: Path, now: datetime, *account: str) -> dict[str, Any]:
    done = subprocess.run(
        [
            VENVS / "browser" / "bin" / "python",
            ROOT / "tests" / "support" / "look_at_page.py",
            chromium,
            page,
            folder,
            f"{now.isoformat()}+00:00",
            *account,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.fixture(scope="session")
def chromium() -> str:
    return require_chromium()


@pytest.fixture(scope="session")
def seen(
    modelled_histories: dict[str, History],
    chromium: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    page = modelled_histories["postgres"].page
    return look(chromium, page, tmp_path_factory.mktemp("seen"), PAGE_MADE_AT, "a11")


def test_the_embedded_libraries_are_unchanged() -> None:
    vendor = ROOT / "transform" / "report_page" / "vendor"
    sums = [line.split() for line in (vendor / "SHA256SUMS").read_text().splitlines()]
    files = {path.name for path in vendor.iterdir()} - {"README.md", "SHA256SUMS"}
    assert {name for _, name in sums} == files
    for digest, name in sums:
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest


def test_nothing_is_fetched_and_no_name_is_run(seen: dict[str, Any]) -> None:
    assert seen["complaints"] == []
    assert seen["requests"] == 9  # the file itself, each time
    assert seen["opened"]["at_once"]["title"] == "Prepaid balances"


def test_it_is_readable_on_a_desk_on_a_phone_and_in_the_dark(seen: dict[str, Any]) -> None:
    readers = seen["readers"]
    assert [readers[reader]["width"] for reader in ("desk", "phone", "dark")] == [1280, 390, 1280]
    assert readers["desk"]["paper"] > 0.9
    assert readers["dark"]["paper"] < 0.05
    for reader, height in (("desk", 800), ("phone", 844), ("dark", 800)):
        assert readers[reader]["least_contrast"] >= 4.5
        assert readers[reader]["least_contrast_of_lines"] >= 4.5
        assert readers[reader]["smallest_letters"] >= 11.9
        assert all(bottom <= height for bottom in readers[reader]["first_screen"].values())


def test_it_can_be_read_without_scripts_which_change_no_word_when_opened_at_once(
    seen: dict[str, Any],
) -> None:
    assert seen["without_scripts"]["rows"] == 50
    assert seen["without_scripts"]["warning"] == []
    assert seen["opened"]["at_once"]["times"] == seen["without_scripts"]["times"]
    assert seen["opened"]["at_once"]["warning"] == []


def test_ages_and_the_warning_are_right_when_it_is_opened_later_and_elsewhere(
    seen: dict[str, Any],
) -> None:
    later = seen["opened"]["later"]
    assert later["title"] == "Out of date: Prepaid balances"
    assert later["heading"] == '": out of date"'
    (warning,) = later["warning"]
    assert warning == (
        "Out of date. This page was made 2 days ago, and nothing below is newer than "
        "2026-04-01 00:20 UTC. Make the page again."
    )
    assert later["times"][0] == "2 days"
    assert any(time.startswith("by now (2026-04-0") for time in later["times"])
    tokyo = seen["opened"]["in_tokyo"]["times"]
    assert "2026-04-01 00:23 UTC, 09:23 here" in tokyo
    assert any(time.endswith(" here)") for time in tokyo)


@on_postgres
def test_a_page_of_models_that_are_not_built_any_more_says_so(history: History) -> None:
    as_of = history.builds[-1].as_of
    late = page_of(history.warehouse, history.folder, as_of, as_of + timedelta(hours=26))
    page = parse(late.read_text(encoding="utf-8"))
    warning = page.one("p", id="old-models")
    assert "hidden" not in warning.attributes
    assert warning.text == (
        "Out of date. When this page was made, the models had not been built for 26 hours, and "
        "nothing below is newer than 2026-04-01 00:20 UTC. Find out why dbt does not run, then "
        "make the page again."
    )


def test_it_can_be_used_by_keyboard_and_heard_in_order(
    seen: dict[str, Any], found: dict[str, Found]
) -> None:
    used = seen["used"]
    critical = sum(one.runway.status == "critical" for one in found.values())
    assert len(used["filtered"]) == critical > 0
    assert all(text.startswith("▲ critical") for text in used["filtered"])
    assert used["info"] == f"1 to {critical} of {critical} accounts (of 50)"
    assert used["live"] == "polite"
    assert used["found"]
    assert all("a1" in name for name in used["found"])
    totals = [found[name].row.total for name in used["order_of_names"]]
    assert totals == sorted(totals)
    assert used["csv_name"] == "top-ups.csv"
    assert used["csv"].startswith("account,product,currency,status,")
    headings = [name for tag, name in used["order"] if tag in {"H1", "H2"}]
    assert headings == [
        "Prepaid balances", "totals-title", "first-title", "top-up-title", "accounts-title",
    ]  # fmt: skip


def test_a_history_opens_from_its_row_with_exact_numbers(
    seen: dict[str, Any], found: dict[str, Found]
) -> None:
    used = seen["used"]
    assert (used["expanded"], used["closed"]) == ("true", True)
    one = found["a11"]

    def shown(amount10000: int) -> str:
        places = f"{Decimal(amount10000) / 10000:,.4f}".rstrip("0").rstrip(".")
        return f"{places} {one.currency}"

    newest = max(day for day, entry in one.days.items() if entry.changes)
    for back, legend in enumerate(used["history"]):
        entry = one.days[newest - back * DAY]
        assert entry.amounts
        spend, top_up, *_ = map(shown, entry.amounts)
        day = str(newest - back * DAY)
        assert legend[:3] == [day, shown(entry.changes[-1].row.total), top_up]
        assert legend[-2:] == [day, spend]


IMAGES = ROOT / "docs" / "images"
FIRST_SCREEN = ("desk", "phone", "dark", "print")
KEPT = {8: (*FIRST_SCREEN, "history"), 200: FIRST_SCREEN, 2000: FIRST_SCREEN}


@pytest.mark.parametrize("count", KEPT)
def test_many_accounts_fit_on_the_first_screen_on_one_sheet_and_in_3_mb(
    count: int,
    in_postgres: Callable[[str], InPostgres],
    chromium: str,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    until = datetime(2026, 11, 27, 8, 5)  # noqa: DTZ001 - as in the table
    every = timedelta(hours=1 if count == 8 else 12)
    interval = {"snapshot_interval_seconds": every // timedelta(seconds=1)}
    warehouse = in_postgres(f"accounts{count}")
    warehouse.load(demo_history.history(until, count=count, every=every))
    built = dbt(warehouse, tmp_path, "run", as_of=until + timedelta(minutes=15), **interval)
    assert built.status == 0, built.log
    as_of, now = until + timedelta(minutes=15), until + timedelta(minutes=18)
    page = page_of(warehouse, tmp_path, as_of, now, **interval)
    warehouse.drop()
    assert page.stat().st_size < 3_000_000
    seen = look(chromium, page, tmp_path, now, *(["shop"] if count == 8 else []))
    assert seen["complaints"] == []
    assert seen["without_scripts"]["rows"] == count
    for reader, height in (("desk", 800), ("phone", 844)):
        assert all(bottom <= height for bottom in seen["readers"][reader]["first_screen"].values())
    assert seen["print"]["sheets"] == 1
    for name in KEPT[count]:
        image = tmp_path / f"{name}.png"
        assert image.stat().st_size < 300_000
        if pytestconfig.option.update_snapshots:
            shutil.copy(image, IMAGES / f"page-{count}-{name}.png")
