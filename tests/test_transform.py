"""The dbt project on a real Postgres and on the Snowflake emulator, beside independent Python."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import closing
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import marts
import psycopg
import pytest
from bank import Account
from modelled import CHANGES, MARTS
from parts import ROOT
from runners import Destination
from targets import Load, Postgres
from warehouses import InPostgres, as_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import embedded
    from bank import Bank
    from modelled import History
    from runners import Meltano
    from warehouses import Row

pytestmark = pytest.mark.e2e


def ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: tuple("" if value is None else value for value in row))


def test_changes_are_what_python_finds(history: History) -> None:
    for told in history.told:
        nothing: tuple[None, ...] = (None,) * 4
        expected = [
            (
                *marts.series(change.row),
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
            for change in marts.changes(told.rows, told.as_of)
        ]
        assert ordered(told.changes) == ordered(as_text(expected))


def test_days_are_what_python_finds(history: History) -> None:
    nothing: tuple[None, ...] = (None,) * 4
    for told in history.told:
        days = marts.daily(marts.changes(told.rows, told.as_of), told.as_of)
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
        newest = {change.row.account: change.row for change in marts.changes(told.rows, told.as_of)}
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
        changes = marts.changes(told.rows, told.as_of)
        found = marts.runway(changes, marts.daily(changes, told.as_of), told.as_of)
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
        if day >= str(told.as_of.date() - marts.WINDOW * marts.DAY)
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
                message += f", only {days} complete days in the last {marts.WINDOW}"
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
def test_no_account_at_all_is_an_alert(history: History) -> None:
    accounts = [row[0] for row in history.told[-1].runway]
    models = ("balance_latest", "balance_runway")
    done = history.dbt(
        "build",
        "--select",
        *models,
        "accounts_stale",
        "--exclude",
        "test_type:unit",
        retired_accounts=accounts,
    )
    assert done.returncode == 1, done.stdout
    assert "there is no account at all" in done.stdout
    # The other tests want all accounts.
    restored = history.dbt("run", "--select", *models)
    assert restored.returncode == 0, restored.stdout


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
                "--no-install",
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
