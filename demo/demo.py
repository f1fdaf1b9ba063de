"""`make demo`: from an empty clone to balances in a real Postgres, without an account.

It starts the sandbox and a Postgres out of a wheel, lets the real Meltano run the pipeline of
meltano.yml three times, twice of them for one snapshot interval, and shows the table. Then it
makes up four weeks of an account that drains, and lets dbt say when messages will stop.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import drained
import embedded
import meltano_project
from steps import run_command, say, start, step

from tap_balance.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

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
INTERVAL = 300
"""Seconds of a snapshot interval here."""


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    with servers() as (base_url, database):
        pipeline = Pipeline(base_url, database)
        # As a scheduler does, the demo says which interval a run is for: however slow this machine
        # is, two runs are of one interval, and nobody has to wait for the next.
        this = int(time.time()) // INTERVAL * INTERVAL
        pipeline.load("Run 1", this)
        pipeline.load("Run 2, for the same interval: it replaces the rows of run 1", this)
        pipeline.load("Run 3, for the next interval: it adds rows", this + INTERVAL)
        show(database)
        announce(pipeline, database)
        with step("\nWriting a page to look at"):
            report(database)
    say(f"\nDone in {time.monotonic() - started:.0f} s; everything that was started is stopped.")
    explain()


@contextlib.contextmanager
def servers() -> Iterator[tuple[str, embedded.Postgres]]:
    """Start the sandbox and a Postgres without rows; stop them at the end, also after a SIGTERM.

    Yields:
        Where the sandbox listens, and the Postgres.
    """
    signal.signal(signal.SIGTERM, _end)
    OUTPUT.mkdir(exist_ok=True)
    with Sandbox() as sandbox, contextlib.ExitStack() as stack:
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
        base_url: Where the sandbox listens.
        database: Where to load to.
    """

    def __init__(self, base_url: str, database: embedded.Postgres) -> None:
        shutil.rmtree(PROJECT, ignore_errors=True)
        meltano_project.make(PROJECT)
        LOG.unlink(missing_ok=True)
        self._environment = (
            os.environ
            | DBT_WRITES
            | {
                "DEMO_POSTGRES": database.socket_folder,
                "MELTANO_CLI_DISABLE_VERSION_CHECK": "1",
                "MELTANO_ENVIRONMENT": "dev",
                "TAP_BALANCE_BASE_URL": base_url,
                "TAP_BALANCE_SNAPSHOT_INTERVAL": f"PT{INTERVAL}S",
            }
        )

    def load(self, title: str, interval: int) -> None:
        """Run the pipeline once, for the interval that begins at this Unix time."""
        at = datetime.fromtimestamp(interval, timezone.utc).isoformat()
        with step(title):
            self.run("run", "tap-balance", "target-postgres", TAP_BALANCE_SNAPSHOT_AT=at)

    def run(self, command: str, *arguments: str, **environment: str) -> None:
        """Run Meltano; what it prints is appended to its log."""
        run_command(
            [MELTANO, command, "--no-install", *arguments],
            LOG,
            cwd=PROJECT,
            env=self._environment | environment,
        )


def show(database: embedded.Postgres) -> None:
    """Print the table's columns and rows, and keep the rows in a file."""
    say("\nThe columns, as Postgres reports them:\n")
    say(
        database.psql(
            "SELECT column_name, data_type, numeric_precision AS precision, numeric_scale AS scale "
            "FROM information_schema.columns WHERE table_schema = 'tap_balance' "
            "AND table_name = 'balance' ORDER BY ordinal_position"
        )
    )
    say("The rows (three accounts, two intervals; the amounts of one run are of one moment):\n")
    say(table_of(database))
    rows = database.psql(
        "SELECT * FROM tap_balance.balance ORDER BY snapshot_at, account", options=("--csv",)
    )
    (OUTPUT / "balance.csv").write_text(rows)
    found = len(list(csv.DictReader(io.StringIO(rows))))
    expected = 6
    if found != expected:
        sys.exit(f"There are {found} rows instead of {expected}; this is a defect.")


def table_of(database: embedded.Postgres) -> str:
    """The rows that were loaded, as Postgres prints them."""
    return database.psql(
        "SELECT snapshot_id, product, currency, balance10000, balance, gift_balance, "
        "total_balance FROM tap_balance.balance ORDER BY snapshot_at, account"
    )


def announce(pipeline: Pipeline, database: embedded.Postgres) -> None:
    """Let dbt judge an account that drains, at three moments of its last week."""
    say("An account that nobody tops up (four weeks of it, made up), and what dbt's alerts say:\n")
    now = datetime.now(timezone.utc)
    drained.load(database, now)
    messages = []
    for title, arguments in drained.moments(now):
        with step(f"  {title}"):
            pipeline.run("invoke", "dbt-postgres", *arguments)
        messages.append(drained.alert(database))
        say(f"    {messages[-1]}")
    statuses = [message.split(":")[0] for message in messages]
    if statuses != [f"account drained is {status}" for status in ("low", "critical", "empty")]:
        sys.exit("It was not announced; this is a defect.")


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
The page is {OUTPUT.name}/report.html; it needs no network to be opened.
All rows are in {OUTPUT.name}/balance.csv, Meltano's log is in {OUTPUT.name}/meltano.log.

With a real account, nothing but the settings changes (the demo does not read them):
  cp .env.example .env            # then write dev_key, dev_secret and the database into it
  .venvs/meltano/bin/meltano --environment=prod run tap-balance target-postgres"""
    )


def _end(signum: int, _frame: object) -> NoReturn:
    sys.exit(128 + signum)


if __name__ == "__main__":
    start(main)
