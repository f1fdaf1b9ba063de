"""The dbt project on a real Postgres and on the Snowflake emulator, beside independent Python."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import answers
import histories
import psycopg
import pytest
from bank import Account
from parts import ROOT
from runners import Destination
from targets import Load, Postgres
from warehouses import VENVS, InPostgres, as_text, dbt, environment, warehouse_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import embedded
    from bank import Bank
    from histories import Snapshot
    from runners import Meltano
    from warehouses import Row, Warehouse

pytestmark = pytest.mark.e2e

HOUR = timedelta(hours=1)
IN_AN_OUTAGE = histories.START + 987 * HOUR
"""40 hours into 75 of the account "it's <b>1": longer than an incremental run looks back."""


@dataclass
class Told:
    """What the models said at one time, and what had been loaded by then."""

    as_of: datetime
    rows: list[Snapshot]
    changes: list[Row]
    daily: list[Row]
    latest: list[Row]
    runway: list[Row]


@dataclass
class History:
    """A quarter that was loaded and modelled in three steps, the last two incrementally."""

    warehouse: Warehouse
    folder: Path
    told: list[Told]
    page: Path

    def dbt(
        self, *arguments: str, as_of: datetime | None = None, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        """Run dbt on it, at the time of the last step if no other is said."""
        as_of = as_of or self.told[-1].as_of
        return dbt(self.warehouse, self.folder, *arguments, as_of=as_of, **variables)


# The emulator keeps NUMBER(38, 0) in 64 bits, in which the largest differences end.
NOT_IN: dict[str, list[str]] = {"postgres": [], "snowflake": ["no_difference_is_too_large"]}
KINDS = tuple(NOT_IN)
MARTS = "tap_balance_marts"
# As text, because the emulator's server sends a timestamp that is null as one of 1970.
CHANGES = f"""
    SELECT account, product, currency, snapshot_at, CAST(previous_snapshot_at AS varchar), is_gap,
        previous_balance10000, balance10000, previous_gift_balance10000, gift_balance10000,
        total_balance10000, spend10000, top_up10000, gift_granted10000, gift_used_or_expired10000
    FROM {MARTS}.balance_changes
"""
DAILY = f"""
    SELECT account, product, currency, day, coverage, snapshots,
        opening_balance10000, closing_balance10000,
        opening_gift_balance10000, closing_gift_balance10000,
        spend10000, top_up10000, gift_granted10000, gift_used_or_expired10000
    FROM {MARTS}.balance_daily
"""
LATEST = f"""
    SELECT account, snapshot_at, age_seconds, balance10000, balance, gift_balance, total_balance
    FROM {MARTS}.balance_latest
"""
RUNWAY = f"""
    SELECT account, status, complete_days,
        burn_per_day10000, burn_per_day_low10000, burn_per_day_high10000,
        days_left, days_left_low, days_left_high, runs_out_on
    FROM {MARTS}.balance_runway
"""


@pytest.fixture(scope="module")
def both(
    postgres: embedded.Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, History]]:
    """The history in each database; the two are made at once, since dbt keeps a core busy."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        warehouses = {
            kind: stack.enter_context(warehouse_of(kind, postgres, folder))
            for kind, folder in folders.items()
        }
        told = pool.map(tell, KINDS, warehouses.values(), folders.values())
        yield dict(zip(KINDS, told, strict=True))


@pytest.fixture(scope="module", params=KINDS)
def history(request: pytest.FixtureRequest, both: dict[str, History]) -> History:
    return both[request.param]


def tell(kind: str, warehouse: Warehouse, folder: Path) -> History:
    every = histories.quarter()
    tries = histories.tried_again(every)
    first = IN_AN_OUTAGE
    late = [row for row in every if row.account == "a03" and first - 11 * HOUR < row.at < first]
    # A try that comes when the models have been built with the one before it.
    again = [
        replace(row, observed_at=row.observed_at + timedelta(minutes=9), paid=row.paid - 77)
        for row in every
        if row.account == "a09" and first - 5 * HOUR < row.at <= first
    ]
    assert len(late) == 10
    assert len(again) == 5
    steps = [
        [row for row in [*every, *tries] if row.at <= first and row not in late],
        [*late, *again, *(row for row in every if first < row.at <= first + HOUR)],
        [row for row in [*tries, *every] if row.at > first + HOUR],
    ]
    times = [first, first + HOUR, histories.START + histories.HOURS * HOUR]
    told: list[Told] = []
    for rows, hour in zip(steps, times, strict=True):
        as_of = hour + timedelta(minutes=20)
        warehouse.load(rows)
        options = ["--selector", "models"]
        if not told:
            options = ["--exclude", "tag:alert", *NOT_IN[kind]]
        done = dbt(warehouse, folder, "build", *options, as_of=as_of)
        assert done.returncode == 0, done.stdout
        if not told:
            passed = re.findall(r"PASS balance_\w+::(\w+)", done.stdout)
            assert len(passed) == 20 - len(NOT_IN[kind])
        told.append(
            Told(
                as_of,
                [*(told[-1].rows if told else []), *rows],
                *(warehouse.query(sql) for sql in (CHANGES, DAILY, LATEST, RUNWAY)),
            )
        )
    return History(warehouse, folder, told, page_of(warehouse, folder, told[-1].as_of))


def page_of(warehouse: Warehouse, folder: Path, as_of: datetime, charts: int = 100) -> Path:
    path = folder / f"report-{charts}.html"
    done = subprocess.run(
        [
            VENVS / "report" / "bin" / "python",
            ROOT / "transform" / "report.py",
            f"--dbt={VENVS / 'dbt' / 'bin' / 'dbt'}",
            f"--output={path}",
            f"--charts={charts}",
            f"--vars={json.dumps({'as_of': as_of.isoformat()})}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(warehouse, folder),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: tuple("" if value is None else value for value in row))


def test_changes_are_what_python_finds(history: History) -> None:
    for told in history.told:
        nothing: tuple[None, ...] = (None,) * 4
        expected = [
            (
                *answers.series(change.row),
                change.row.at,
                change.before and change.before.at,
                change.is_gap,
                change.before and change.before.paid,
                change.row.paid,
                change.before and change.before.gift,
                change.row.gift,
                change.row.total,
                *(change.amounts or nothing),
            )
            for change in answers.changes(told.rows, told.as_of)
        ]
        assert ordered(told.changes) == ordered(as_text(expected))


def test_days_are_what_python_finds(history: History) -> None:
    nothing: tuple[None, ...] = (None,) * 4
    for told in history.told:
        days = answers.daily(answers.changes(told.rows, told.as_of), told.as_of)
        expected = [
            (
                *series,
                day,
                found.coverage,
                len(found.changes),
                *(found.ends if found.changes else nothing),
                *(found.amounts or nothing),
            )
            for (series, day), found in days.items()
        ]
        assert ordered(told.daily) == ordered(as_text(expected))
    assert {row[4] for row in history.told[-1].daily} == {"complete", "partial", "unknown"}


def test_the_latest_are_what_python_finds(history: History) -> None:
    for told in history.told:
        newest = {
            change.row.account: change.row for change in answers.changes(told.rows, told.as_of)
        }
        expected = [
            (
                row.account,
                row.at,
                max((told.as_of - row.observed_at) // timedelta(seconds=1), 0),
                row.paid,
                *row.row[-3:],
            )
            for row in newest.values()
        ]
        assert ordered(told.latest) == ordered(as_text(expected))


def test_runways_are_what_python_finds(history: History) -> None:
    statuses = set()
    for told in history.told:
        changes = answers.changes(told.rows, told.as_of)
        found = answers.runway(changes, answers.daily(changes, told.as_of), told.as_of)
        expected = [
            (
                account,
                runway.status,
                runway.complete_days,
                *(runway.burn or (None, None, None)),
                *(None if days is None else f"{days:.1f}" for days in runway.days_left),
                runway.runs_out_on,
            )
            for account, runway in found.items()
        ]
        assert ordered(told.runway) == ordered(as_text(expected))
        statuses |= {runway.status for runway in found.values()}
    assert statuses == {"ok", "low", "critical", "empty", "accumulating", "stale"}
    held = [row for row in history.told[0].runway if row[1] == "critical" and str(row[6]) >= "3.0"]
    assert {row[0] for row in held} == {"a07", "a47"}


def decimal(amount10000: str | None) -> str:
    return f"{Decimal(str(amount10000)) / 10000:.4f}"


def test_alerts_fail_or_warn_and_name_accounts_and_numbers(history: History) -> None:
    told = history.told[-1]
    done = history.dbt("test", "--selector", "alerts")
    assert done.returncode == 1
    assert re.search(r"FAIL \d+ accounts_critical_or_empty", done.stdout)
    assert re.search(r"WARN \d+ accounts_low", done.stdout)
    assert "WARN 1 accounts_unjudged" in done.stdout
    assert re.search(r"ALERT \(warn\) account a25 is .* UTC, only 0 complete days", done.stdout)
    assert "FAIL 1 accounts_stale" in done.stdout
    seen: list[str] = []
    wanted = {
        "accounts_critical_or_empty": {"critical", "empty"},
        "accounts_low": {"low"},
        "accounts_stale": {"stale"},
        "accounts_unjudged": {"accumulating"},
    }
    # Those accounts that are too new to be judged are no alert.
    first_days: dict[str | None, str] = {}
    for row in told.daily:
        first_days[row[0]] = min(str(row[3]), first_days.get(row[0], str(row[3])))
    new = {
        account
        for account, day in first_days.items()
        if day >= str(told.as_of.date() - answers.WINDOW * answers.DAY)
    }
    assert new
    for test, statuses in wanted.items():
        stored = history.warehouse.query(
            "SELECT account, status, days_left, message, total_balance10000, currency,"
            " CAST(snapshot_at AS varchar), days_left_low, days_left_high, burn_per_day10000,"
            f" runs_out_on FROM {MARTS}_alerts.{test}"
        )
        expected = {
            (row[0], row[1], row[6])
            for row in told.runway
            if row[1] in statuses and not (row[1] == "accumulating" and row[0] in new)
        }
        assert expected
        assert {row[:3] for row in stored} == expected
        for row in stored:
            total, currency, at, low, high, burn, until = row[4:]
            message = f"account {row[0]} is {row[1]}: {decimal(total)} {currency} at {at} UTC"
            if row[2] and int(str(total)) > 0:
                message += f", {row[2]} days left ({low} to {high or 'many'})"
                message += f" at {decimal(burn)} a day, until {until}"
            if test == "accounts_unjudged":
                days = {told_of[0]: told_of[2] for told_of in told.runway}[row[0]]
                message += f", only {days} complete days in the last {answers.WINDOW}"
                message += ": nobody says when it runs out"
            assert row[3] == message
            assert f") {message}\n" in re.sub("\033.*?m", "", done.stdout)
            seen.append(message)
    # Also where what is left does not last a tenth of a day.
    assert any(", 0.0 days left (0.0 to " in message for message in seen)


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_loaders_are_kept_out_for_an_index_only_while_it_is_added(history: History) -> None:
    names = "SELECT indexname FROM pg_indexes WHERE schemaname = 'tap_balance'"
    options = ("run", "--select", "balance_changes")
    assert isinstance(history.warehouse, InPostgres)
    assert history.warehouse.query(names) == [("balance_snapshot_at",)]
    with psycopg.connect(history.warehouse.uri, autocommit=True) as connection:
        connection.execute("DROP INDEX tap_balance.balance_snapshot_at")
        # The index is there although the model itself has failed.
        done = history.dbt(*options, snapshot_interval_seconds="(1 / 0)")
        assert "division by zero" in done.stdout
        assert history.warehouse.query(names) == [("balance_snapshot_at",)]
        connection.execute("ALTER INDEX tap_balance.balance_snapshot_at RENAME TO somebodys")
        # As a loader in the midst of its work has it.
        with connection.transaction():
            connection.execute("LOCK TABLE tap_balance.balance IN ROW EXCLUSIVE MODE")
            done = history.dbt(*options)
        assert done.returncode == 0, done.stdout
        assert history.warehouse.query(names) == [("somebodys",)]
        connection.execute("ALTER INDEX tap_balance.somebodys RENAME TO balance_snapshot_at")


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_the_page_says_that_not_all_accounts_have_a_chart(history: History) -> None:
    path = page_of(history.warehouse, history.folder, history.told[-1].as_of, charts=2)
    text = path.read_text(encoding="utf-8")
    assert "Only the first 2 of 50 accounts have a chart." in text
    assert text.count("<svg ") == 2


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_no_account_at_all_is_an_alert(history: History) -> None:
    accounts = [row[0] for row in history.told[-1].runway]
    done = history.dbt(
        "build",
        "--select",
        "balance_latest",
        "balance_runway",
        "accounts_stale",
        "--exclude",
        "test_type:unit",
        retired_accounts=accounts,
    )
    assert done.returncode == 1, done.stdout
    assert "there is no account at all" in done.stdout


def test_a_time_before_what_is_built_is_an_error(history: History) -> None:
    done = history.dbt("run", "--selector", "models", as_of=history.told[0].as_of)
    assert done.returncode == 1, done.stdout
    assert "as_of lies before what is built; add --full-refresh" in done.stdout
    assert ordered(history.warehouse.query(CHANGES)) == ordered(history.told[-1].changes)


def test_a_text_reaches_the_database_as_it_is(history: History) -> None:
    text = "it's \\n a \\' \\\\ test\\"
    done = history.dbt(
        "--quiet",
        "show",
        "--inline",
        "select {{ text_literal(var('text')) }} as said",
        "--output=json",
        text=text,
    )
    assert done.returncode == 0, done.stdout
    (row,) = json.loads(done.stdout[done.stdout.index("{") :])["show"]
    assert list(row.values()) == [text]


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_an_unknown_threshold_is_an_error(history: History) -> None:
    done = history.dbt(
        "compile",
        "--select",
        "balance_runway",
        account_thresholds={"shop": {"low_days": 9, "critical": 5}},
    )
    assert done.returncode != 0
    words = "account_thresholds of shop: there is no critical, only critical_days and low_days"
    assert words in done.stdout


def test_dbt_leaves_no_trace_of_telemetry(history: History) -> None:
    # It would keep the sender's name beside the profile.
    assert not (ROOT / "transform" / ".user.yml").exists()
    assert not (history.folder / ".user.yml").exists()


def test_the_page_shows_every_account_its_amount_and_its_status(history: History) -> None:
    text = history.page.read_text(encoding="utf-8")
    totals = {row[0]: Decimal(str(row[6])) for row in history.told[-1].latest}
    assert text.count("<article") == len(history.told[-1].runway)
    for account, status, *_ in history.told[-1].runway:
        card = text.split(f"<h2>{html.escape(str(account))} <", 1)[1].split("</article>", 1)[0]
        assert f" {status}: " in card
        assert f">{totals[account]:,.4f} " in card
        assert "<svg " in card
        assert ("unknown how long it lasts" in card) == (status == "stale")
        assert "until" not in card or status in {"ok", "low", "critical"}
    assert "have a chart" not in text


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not found and shutil.which("apt-get") and os.geteuid() == 0:
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-qq", *arguments], check=False, capture_output=True)
        found = shutil.which("chromium")
    if not found:
        pytest.fail("Chromium is missing: run `apt-get install chromium`, or set CHROMIUM=/path")
    return found


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_the_page_is_readable_without_network_on_a_phone_in_the_dark_and_without_colour(
    history: History, chromium: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            VENVS / "browser" / "bin" / "python",
            ROOT / "tests" / "look_at_page.py",
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
    status_of = {str(row[0]): str(row[1]) for row in history.told[-1].runway}
    assert len(seen["dark"]["statuses"]) == 50
    for account, line in seen["dark"]["statuses"]:
        assert line.startswith(f"{signs[status_of[account]]} {status_of[account]}: ")
    # Two days of a05 are unknown at the end; 75 hours of a11 in the midst break its line.
    charts = seen["phone"]["charts"]
    topped_up = sum(
        1
        for row in history.told[-1].daily
        if row[0] == "a11" and row[11] not in {None, "0"} and str(row[3]) > "2026-01-01"
    )
    assert charts["a11"]["triangles"] == topped_up > 0
    assert charts["a11"]["label"] == f"Balance of a11 by day; {topped_up} days with a top-up"
    assert charts["a11"]["lines"][0][0] == 2
    assert charts["a32"]["lines"][1][1] == "4,4"
    # A single day is a dot; what is stale leads to no end.
    assert [charts[account]["dots"] for account in ("a11", "a40")] == [0, 1]
    assert len(charts["a05"]["lines"]) == 1


def test_what_meltano_loads_it_judges_and_an_empty_account_is_an_alert(
    postgres: embedded.Postgres, meltano_project: Meltano, bank: Bank, tmp_path: Path
) -> None:
    now = datetime.now(timezone.utc).isoformat()
    accounts = [Account("example"), Account("empty", 0, currency="USD")]
    with closing(Postgres(postgres)) as target:
        load = Load(bank.settings(accounts), now)
        assert Destination("postgres meltano", target, meltano_project).load(load) == 0
        steps = ("dbt-postgres:build", "dbt-postgres:alert")
        with pytest.raises(subprocess.CalledProcessError) as ended:
            meltano_project.run(
                "--environment=prod",
                "run",
                *steps,
                env={
                    "DBT_POSTGRES_HOST": postgres.socket_folder,
                    "DBT_POSTGRES_DBNAME": target.name,
                    "DBT_TARGET_PATH": str(tmp_path),
                    "DBT_LOG_PATH": str(tmp_path),
                },
            )
        assert "ALERT (fail) account empty is empty: 0.0000 USD at " in (
            ended.value.stdout + ended.value.stderr
        )
        rows = target.query(
            "SELECT account, status, total_balance10000 FROM tap_balance_marts.balance_runway"
        )
        assert sorted(rows) == [["empty", "empty", 0], ["example", "accumulating", 123456]]
