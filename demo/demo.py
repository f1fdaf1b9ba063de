"""`make demo`: from an empty clone to alerts from a real Postgres, without an account.

Eight accounts with four months of history: the sandbox continues it, the real Meltano loads it as
meltano.yml says, and dbt finds which accounts run out, before and after an hour in which one of
them is abused.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import embedded
import history
import meltano_project
from history import HOUR
from steps import run_command, say, start, step

from tap_balance.sandbox import SECRET, Sandbox, authenticate, dev_key, otp_body, sms_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from history import Snapshot

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
PROJECT = OUTPUT / "project"
LOG = OUTPUT / "meltano.log"
MELTANO = ROOT / ".venvs" / "meltano" / "bin" / "meltano"
DBT_WRITES = {
    "DBT_TARGET_PATH": str(OUTPUT / "dbt" / "target"),
    "DBT_LOG_PATH": str(OUTPUT / "dbt" / "logs"),
}
DBT = ROOT / ".meltano" / "utilities" / "dbt-postgres" / "venv" / "bin" / "dbt"

ALERTS = """
SELECT format('  %s %s', rpad(state, 7), message) FROM tap_balance_marts.balance_alerts
WHERE state <> 'over' ORDER BY state, severity, account
"""
ANSWERS = """
SELECT account, status, total_balance AS "left", currency AS "in", round(burn_per_day, 2) AS a_day,
  days_left, days_left_low || ' to ' || days_left_high AS between,
  coalesce(to_char(runs_out_at, 'YYYY-MM-DD HH24:MI'), runs_out_on::text) AS runs_out, top_up
FROM tap_balance_marts.balance_runway ORDER BY days_left
"""
COLUMNS = """
SELECT string_agg(
  format('%I AS "%s %s"', attname, attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum
)
FROM pg_attribute WHERE attrelid = 'tap_balance.balance'::regclass
  AND attname IN ('snapshot_id', 'currency', 'balance10000', 'balance')
"""


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    # The hour that has begun, and the one before it. In an hour's last minute the next one counts:
    # the tap refuses an hour that is long over.
    begins = (time.time() + 60) // 3600 * 3600
    this = datetime.fromtimestamp(begins, timezone.utc).replace(tzinfo=None)
    past = this - HOUR
    rows = list(history.history(this))
    sandbox = Continued(rows)
    with servers(sandbox) as (_, database):
        pipeline = Pipeline(sandbox, database)
        pipeline.load("Run 1, for {:%H:%M} UTC: what eight accounts have left", past)
        with step("Adding four months of such rows"):
            history.load(database.uri, (row for row in rows if row.at < past))
        before = count(database)
        pipeline.load("Run 2, for {:%H:%M} UTC again, as after a failure", past)
        say(f"-> {before} rows before, {count(database)} after: a run can be repeated.\n")
        pipeline.judge(as_of=past)
        say("-> Two accounts run out within a week; the alerts say when.\n")

        time.sleep(max(0.0, begins - time.time()))
        say("An hour later. Somebody abuses the login form, which sends one-time passwords:")
        pipeline.load("Run 3, for {:%H:%M} UTC", this)
        if "account login burns far more than usual" not in pipeline.judge():
            sys.exit("The surge was not found; this is a defect.")
        say("-> The surge is found at its first snapshot; by its usual days, login is still ok:\n")
        say(f"{table(database, ANSWERS)}\n")
        columns = value(database, COLUMNS)
        say(
            table(
                database,
                f"SELECT {columns} FROM tap_balance.balance WHERE account = 'login' "  # noqa: S608
                "ORDER BY snapshot_at DESC LIMIT 3",
            )
        )
        say("-> One row an hour, in types that keep every digit.\n")
        with step("Writing a page to look at"):
            report(database)
    say(f"\nDone in {time.monotonic() - started:.0f} s; everything that was started is stopped.")
    explain()


class Continued(Sandbox):
    """A sandbox whose balances are those of a history.

    Args:
        rows: The history.
    """

    def __init__(self, rows: Iterable[Snapshot]) -> None:
        super().__init__()
        self._rows = {(row.account, row.at): row for row in rows}
        self.hour = datetime.max  # noqa: DTZ901 - UTC, as in the rows
        """The hour whose balances it answers with."""

    def answer(self, authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Answer a request for a balance."""
        row = self._rows[authenticate(authorization), self.hour]
        body_of = sms_body if row.product == "sms" else otp_body
        return 200, body_of(row.paid, row.gift)


@contextlib.contextmanager
def servers(sandbox: Sandbox) -> Iterator[tuple[str, embedded.Postgres]]:
    """Start the sandbox and a Postgres without rows; stop them at the end, also after a SIGTERM.

    Yields:
        Where the sandbox listens, and the Postgres.
    """
    signal.signal(signal.SIGTERM, _end)
    OUTPUT.mkdir(exist_ok=True)
    with sandbox, contextlib.ExitStack() as stack:
        threading.Thread(target=sandbox.serve_forever, daemon=True).start()
        stack.callback(sandbox.shutdown)
        say(f"The sandbox stands in for the API at {sandbox.url}.")
        with step("Starting a Postgres"):
            database = stack.enter_context(embedded.postgres(OUTPUT / "postgres"))
        for schema in ("tap_balance", "tap_balance_marts"):
            database.psql(f"DROP SCHEMA IF EXISTS {schema} CASCADE", options=("-q",))
        yield sandbox.url, database


class Pipeline:
    """Meltano, with this repository's definitions and the demo's own project and environment.

    Args:
        sandbox: Where the balances are.
        database: Where to load to.
    """

    def __init__(self, sandbox: Continued, database: embedded.Postgres) -> None:
        shutil.rmtree(PROJECT, ignore_errors=True)
        meltano_project.make(PROJECT)
        LOG.unlink(missing_ok=True)
        self._sandbox = sandbox
        self._database = database
        accounts = [
            {
                "account": account.name,
                "product": account.product,
                "dev_key": dev_key(account.name),
                "dev_secret": SECRET,
            }
            | ({"currency": account.currency} if account.currency else {})
            for account in history.ACCOUNTS
        ]
        self._environment = (
            os.environ
            | DBT_WRITES
            | {
                "DBT_POSTGRES_HOST": database.socket_folder,
                "MELTANO_CLI_DISABLE_VERSION_CHECK": "1",
                "MELTANO_ENVIRONMENT": "prod",
                "TAP_BALANCE_ACCOUNTS": json.dumps(accounts),
                "TAP_BALANCE_BASE_URL": sandbox.url,
                "TARGET_POSTGRES_SQLALCHEMY_URL": database.sqlalchemy_url,
            }
        )

    def load(self, title: str, hour: datetime) -> None:
        """Run tap and target for an hour, as a scheduler does, whatever time it is now."""
        self._sandbox.hour = hour
        at = f"{hour.isoformat()}Z"
        with step(title.format(hour)):
            self._run("run", "tap-balance", "target-postgres", TAP_BALANCE_SNAPSHOT_AT=at)

    def judge(self, as_of: datetime | None = None) -> str:
        """Build and test the models, as of now or of then; print and return the alerts."""
        options = ["--vars", json.dumps({"as_of": f"{as_of}"})] if as_of else []
        with step("Building and testing the dbt models; their alerts:"):
            self._run("invoke", "dbt-postgres", "build", *options)
        alerts = value(self._database, ALERTS)
        say(alerts)
        return alerts

    def _run(self, command: str, *arguments: str, **environment: str) -> None:
        """Run Meltano; what it prints is appended to its log."""
        run_command(
            [MELTANO, command, "--no-install", *arguments],
            LOG,
            cwd=PROJECT,
            env=self._environment | environment,
        )


def table(database: embedded.Postgres, sql: str) -> str:
    """The rows of a query, as psql prints them."""
    return database.psql(sql, options=("-P", "footer=off")).rstrip("\n")


def value(database: embedded.Postgres, sql: str) -> str:
    """The values of a query's only column, one a line."""
    return database.psql(sql, options=("-At",)).rstrip("\n")


def count(database: embedded.Postgres) -> str:
    """How many rows are loaded."""
    return value(database, "SELECT to_char(count(*), 'FM999,999') FROM tap_balance.balance")


def report(database: embedded.Postgres) -> None:
    """Write the page from the models."""
    run_command(
        [
            ROOT / ".venvs" / "report" / "bin" / "python",
            ROOT / "transform" / "report.py",
            f"--dbt={DBT}",
            f"--output={OUTPUT / 'report.html'}",
        ],
        OUTPUT / "report.log",
        env=os.environ
        | DBT_WRITES
        | {"DBT_TARGET": "postgres", "DBT_POSTGRES_HOST": database.socket_folder},
    )


def explain() -> None:
    """Say where the result is and what to change for a real account."""
    say(
        f"""\
The page is {OUTPUT.name}/report.html; it needs no network to be opened. What Meltano and dbt logged
is in {OUTPUT.name}/meltano.log.

With a real account, nothing but the settings changes (the demo does not read them):
  cp .env.example .env            # then write dev_key, dev_secret and the database into it
  .venvs/meltano/bin/meltano --environment=prod run tap-balance target-postgres"""
    )


def _end(signum: int, _frame: object) -> NoReturn:
    sys.exit(128 + signum)


if __name__ == "__main__":
    start(main)
