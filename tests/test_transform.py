"""The dbt project on a real Postgres and on the Snowflake emulator, beside independent Python."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import answers
import histories
import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import embedded
    from histories import Snapshot

ROOT = Path(__file__).resolve().parent.parent
TRANSFORM = ROOT / "transform"
VENVS = ROOT / ".venvs"
pytestmark = pytest.mark.e2e

Row = tuple[str | None, ...]
COLUMNS = """
    snapshot_id {text}, account {text}, product {text}, snapshot_at {time}, observed_at {time},
    currency {text}, balance10000 {whole}, gift_balance10000 {whole}, total_balance10000 {whole},
    balance numeric(38, 4), gift_balance numeric(38, 4), total_balance numeric(38, 4)
"""
HOUR = timedelta(hours=1)
IN_AN_OUTAGE = histories.START + 987 * HOUR
"""40 hours into one of 75 hours of the account "it's 1": longer than an incremental run looks back.
"""


class Warehouse(Protocol):
    """Where the snapshots are, and dbt's models of them."""

    env: dict[str, str]

    def load(self, rows: Iterable[Snapshot]) -> None:
        """Append, as a target would."""

    def query(self, sql: str) -> list[Row]:
        """The rows, each value as text."""


class InPostgres:
    def __init__(self, server: embedded.Postgres) -> None:
        server.psql("CREATE DATABASE transform")
        self._uri = server.uri.replace("/postgres?", "/transform?", 1)
        self.env = {
            "DBT_TARGET": "postgres",
            "DBT_POSTGRES_HOST": server.socket_folder,
            "DBT_POSTGRES_DBNAME": "transform",
        }
        types = {"text": "text", "time": "timestamp", "whole": "bigint"}
        with psycopg.connect(self._uri) as connection:
            connection.execute("CREATE SCHEMA tap_balance")
            table = f"CREATE TABLE tap_balance.balance ({COLUMNS.format(**types)})"
            connection.execute(table.encode())

    def load(self, rows: Iterable[Snapshot]) -> None:
        with (
            psycopg.connect(self._uri) as connection,
            connection.cursor().copy("COPY tap_balance.balance FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row.row)

    def query(self, sql: str) -> list[Row]:
        with psycopg.connect(self._uri) as connection:
            return as_text(connection.execute(sql.encode()).fetchall())


class InSnowflake:
    def __init__(self, console: subprocess.Popen[str], folder: Path) -> None:
        assert console.stdout
        self._console = console
        self._folder = folder
        (folder / "profiles.yml").write_text(
            json.dumps({
                "tap_balance": {
                    "target": "snowflake",
                    "outputs": {
                        "snowflake": {
                            "type": "snowflake",
                            "account": "fakesnow",
                            "user": "fake",
                            "password": "snow",  # pragma: allowlist secret
                            "host": "127.0.0.1",
                            "port": int(console.stdout.readline()),
                            "protocol": "http",
                            "database": "TRANSFORM",
                            "warehouse": "NONE",
                            "schema": "TAP_BALANCE_MARTS",
                            "threads": 1,
                        }
                    },
                }
            })
        )  # fmt: skip
        self.env = {"DBT_PROFILES_DIR": str(folder)}
        types = {"text": "varchar", "time": "timestamp_ntz", "whole": "numeric(38, 0)"}
        self.query("create database transform")
        self.query("use database transform")
        self.query("create schema tap_balance")
        self.query("use schema tap_balance")
        self.query(f"create table balance ({COLUMNS.format(**types)})")
        self.query("create stage loads")

    def load(self, rows: Iterable[Snapshot]) -> None:
        path = self._folder / "rows.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(row.row for row in rows)
        self.query(f"put 'file://{path}' @loads auto_compress=false overwrite=true")
        self.query("copy into balance from @loads/rows.csv file_format=(type=csv) force=true")

    def query(self, sql: str) -> list[Row]:
        assert self._console.stdin
        assert self._console.stdout
        self._console.stdin.write(json.dumps(sql) + "\n")
        self._console.stdin.flush()
        return as_text(json.loads(self._console.stdout.readline()))


def as_text(rows: Iterable[Sequence[object]]) -> list[Row]:
    return [tuple(None if value is None else str(value) for value in row) for row in rows]


@contextmanager
def warehouse_of(kind: str, postgres: embedded.Postgres, folder: Path) -> Iterator[Warehouse]:
    if kind == "postgres":
        yield InPostgres(postgres)
    else:
        with (
            (folder / "server.log").open("w") as log,
            subprocess.Popen(
                [VENVS / "fakesnow" / "bin" / "python", ROOT / "tests" / "snowflake_for_dbt.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as console,
        ):
            yield InSnowflake(console, folder)
            assert console.stdin
            console.stdin.close()


def dbt(
    warehouse: Warehouse, folder: Path, *arguments: str, as_of: datetime, **variables: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            VENVS / "dbt" / "bin" / "dbt",
            *arguments,
            "--vars",
            json.dumps({"as_of": as_of.isoformat(), **variables}),
        ],
        cwd=TRANSFORM,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ
        | {"HOME": str(folder), "DBT_TARGET_PATH": str(folder), "DBT_LOG_PATH": str(folder)}
        | warehouse.env,
    )


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


@pytest.fixture(scope="module", params=["postgres", "snowflake"])
def history(
    request: pytest.FixtureRequest,
    postgres: embedded.Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[History]:
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    every = histories.quarter()
    tries = histories.tried_again(every)
    first = IN_AN_OUTAGE
    late = [row for row in every if row.account == "a03" and first - 20 * HOUR < row.at < first]
    # A try that comes when the models have been built with the one before it.
    again = [
        histories.Snapshot(
            row.account,
            row.product,
            row.currency,
            row.at,
            row.observed_at + timedelta(minutes=9),
            row.paid - 77,
            row.gift,
        )
        for row in every
        if row.account == "a09" and first - 5 * HOUR < row.at <= first
    ]
    assert len(late) > 15
    assert len(again) == 5
    steps = [
        [row for row in [*every, *tries] if row.at <= first and row not in late],
        [*late, *again, *(row for row in every if first < row.at <= first + HOUR)],
        [row for row in [*tries, *every] if row.at > first + HOUR],
    ]
    times = [first, first + HOUR, histories.START + histories.HOURS * HOUR]
    with warehouse_of(kind, postgres, folder) as warehouse:
        told: list[Told] = []
        for rows, hour in zip(steps, times, strict=True):
            as_of = hour + timedelta(minutes=20)
            warehouse.load(rows)
            # The emulator keeps NUMBER(38, 0) in 64 bits, in which the largest differences end.
            options = ["--exclude", "tag:alert", "no_difference_is_too_large"]
            if told:
                options = ["--selector", "models"]
            elif kind == "postgres":
                options = ["--exclude", "tag:alert"]
            done = dbt(warehouse, folder, "build", *options, as_of=as_of)
            assert done.returncode == 0, done.stdout
            if not told:
                passed = set(re.findall(r"PASS balance_\w+::(\w+)", done.stdout))
                assert len(passed) == (15 if kind == "postgres" else 14)
            told.append(
                Told(
                    as_of,
                    [*(told[-1].rows if told else []), *rows],
                    *(warehouse.query(sql) for sql in (CHANGES, DAILY, LATEST, RUNWAY)),
                )
            )
        yield History(warehouse, folder, told)


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
    assert [row[0] for row in held] == ["a07"]


def test_alerts_fail_or_warn_and_name_accounts_and_numbers(history: History) -> None:
    told = history.told[-1]
    done = dbt(history.warehouse, history.folder, "test", "--selector", "alerts", as_of=told.as_of)
    assert done.returncode == 1
    assert re.search(r"FAIL \d+ accounts_critical_or_empty", done.stdout)
    assert re.search(r"WARN \d+ accounts_low", done.stdout)
    assert "FAIL 1 accounts_stale" in done.stdout
    wanted = {
        "accounts_critical_or_empty": {"critical", "empty"},
        "accounts_low": {"low"},
        "accounts_stale": {"stale"},
    }
    for test, statuses in wanted.items():
        stored = history.warehouse.query(
            f"SELECT account, status, days_left, message FROM {MARTS}_alerts.{test}"
        )
        expected = {(row[0], row[1], row[6]) for row in told.runway if row[1] in statuses}
        assert expected
        assert {row[:3] for row in stored} == expected
        for row in stored:
            message = str(row[3])
            assert message.startswith(f"account {row[0]} is {row[1]}: ")
            assert message in done.stdout


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_no_account_at_all_is_an_alert(history: History) -> None:
    accounts = [row[0] for row in history.told[-1].runway]
    done = dbt(
        history.warehouse,
        history.folder,
        "build",
        "--select",
        "balance_latest",
        "balance_runway",
        "accounts_stale",
        "--exclude",
        "test_type:unit",
        as_of=history.told[-1].as_of,
        retired_accounts=accounts,
    )
    assert done.returncode == 1, done.stdout
    assert "there is no account at all" in done.stdout


def test_dbt_leaves_no_trace_of_telemetry(history: History) -> None:
    assert list(history.folder.glob("**/.user.yml")) == []
