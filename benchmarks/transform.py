"""Build the dbt models of a year of hourly snapshots, then after one more hour.

The models of before (forecasts/judging.py says which) build the same rows first, on the same
machine. Two times of each `dbt build`: what dbt counts from the first statement to the last, and
the whole command as a scheduler runs it, which adds the start and the end of dbt. It writes the
last section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "benchmarks" / "forecasts")]
import embedded  # noqa: E402
import judging  # noqa: E402
import meltano_project  # noqa: E402
from results import OF_THE_MODELS, RESULTS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DBT = ROOT / ".venvs" / "dbt" / "bin" / "dbt"
LARGE = "### Ten times as many accounts"
YEAR = 8760
HOURS_MORE = 5
# So that the last of those hours is this one.
START = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0, tzinfo=None) - (
    timedelta(hours=YEAR + HOURS_MORE - 1)
)
SHARE = 0.05
"""Of the first build's time, at most this much for one more hour."""
RATIO = 1.2
"""Of the first build's time with the models of before, at most this much."""

# The table as target-postgres makes it.
TABLE = """
CREATE {unlogged} TABLE tap_balance.balance (
  snapshot_id text {key}, account text NOT NULL, product text NOT NULL,
  snapshot_at timestamp NOT NULL, observed_at timestamp NOT NULL, currency text,
  balance10000 bigint NOT NULL, gift_balance10000 bigint NOT NULL,
  total_balance10000 bigint NOT NULL, balance numeric(38, 4) NOT NULL,
  gift_balance numeric(38, 4) NOT NULL, total_balance numeric(38, 4) NOT NULL
)
"""
UNREAD = ("snapshot_id", "balance", "gift_balance", "total_balance")
"""Columns that no model reads."""
# Each account falls by about its rate an hour, tops up now and then, and has a gift that expires;
# one snapshot in about 500 is missing.
ROWS = """
INSERT INTO tap_balance.balance ({columns})
SELECT {columns} FROM (
SELECT account || '@' || to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS snapshot_id, account,
  'sms' AS product, at AS snapshot_at, at + interval '2 seconds' AS observed_at, 'USD' AS currency,
  paid AS balance10000, gift AS gift_balance10000, paid + gift AS total_balance10000,
  paid / 10000.0 AS balance, gift / 10000.0 AS gift_balance,
  (paid + gift) / 10000.0 AS total_balance
FROM generate_series({first}, {last}) AS hour
CROSS JOIN generate_series(1::bigint, {accounts}) AS number
CROSS JOIN LATERAL (
  SELECT 'account-' || number AS account, timestamp '{start}' + hour * interval '1 hour' AS at,
    mod(abs(hashint8(hour * 100003 + number)::bigint), 1000) AS luck
) AS named
CROSS JOIN LATERAL (
  SELECT number * 130 * (900 - mod(hour + number * 7, 700 + number)) - number * luck / 10 AS paid,
    CASE WHEN mod(hour + number * 13, 1500) < 300 THEN 50000 ELSE 0 END AS gift
) AS amounts
WHERE luck <> 7
) AS rows
"""


class Database:
    """A Postgres with snapshots of N accounts, and dbt to model them."""

    def __init__(self, server: embedded.Postgres, folder: Path, accounts: int) -> None:
        self.server = server
        self.folder = folder
        self.accounts = accounts

    def load(self, first: int, last: int) -> None:
        columns = self.server.psql(
            "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attnum > 0"
            " AND NOT attisdropped AND attrelid = 'tap_balance.balance'::regclass",
            options=("-At",),
        ).strip()
        self.server.psql(
            ROWS.format(
                columns=columns,
                first=first,
                last=last,
                accounts=self.accounts,
                start=START.isoformat(),
            )
        )

    def count(self, table: str) -> int:
        return int(self.server.psql(f"SELECT count(*) FROM {table}", options=("-At",)))

    def dbt(self, *arguments: str, project: Path = ROOT / "transform") -> tuple[float, float]:
        """Seconds of the run, as dbt counts them, and of the whole command.

        The first is 0 for a command that runs no nodes.
        """
        target = self.folder / project.parent.name
        began = time.perf_counter()
        done = subprocess.run(
            [DBT, "--no-version-check", *arguments, "--profiles-dir", project],
            cwd=project,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "DBT_TARGET": "postgres",
                "DBT_POSTGRES_HOST": self.server.socket_folder,
                "DBT_TARGET_PATH": str(target),
                "DBT_LOG_PATH": str(target),
            },
        )
        took = time.perf_counter() - began
        if done.returncode:
            sys.exit(done.stdout)
        results = target / "run_results.json"
        counted = json.loads(results.read_text())["elapsed_time"] if results.exists() else 0.0
        return counted, took

    def hours(self, more: int) -> tuple[float, float]:
        """Medians of one more hour: run, whole command."""
        times = []
        for hour in range(YEAR, YEAR + more):
            self.load(hour, hour)
            times.append(self.dbt("build"))
        run, command = (statistics.median(each) for each in zip(*times, strict=True))
        return run, command

    def check(self) -> None:
        changes, loaded = (
            self.count(f"{table}")
            for table in ("tap_balance_marts.balance_changes", "tap_balance.balance")
        )
        if changes != loaded:
            sys.exit(f"{changes} changes of {loaded} snapshots: this is a defect.")

    @contextmanager
    def disk(self) -> Iterator[list[float]]:
        """The most GiB that the database takes on disk meanwhile, as the only item."""
        peak = [0.0]
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1):
                command: list[str | Path] = [
                    "du",
                    "--summarize",
                    "--block-size=1M",
                    self.folder / "data",
                ]
                # Files come and go while it counts.
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                peak[0] = max(peak[0], int(done.stdout.split()[0]) / 1024)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield peak
        finally:
            ended.set()
            watcher.join()


@contextmanager
def database(accounts: int, *, key: str, unlogged: str = "") -> Iterator[Database]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded.postgres(Path(folder) / "data") as server,
    ):
        server.psql("CREATE SCHEMA tap_balance", TABLE.format(key=key, unlogged=unlogged))
        yield Database(server, Path(folder), accounts)


def measure(accounts: int, hours: int) -> dict[str, str]:
    with database(accounts, key="PRIMARY KEY") as one:
        before = judging.of_before(one.folder)
        # So that dbt has parsed the projects, as on any day but the first.
        one.dbt("parse")
        one.dbt("parse", project=before)
        one.load(YEAR - hours, YEAR - 1)
        one.server.psql("VACUUM ANALYZE tap_balance.balance")
        rows = one.count("tap_balance.balance")
        old = one.dbt("build", "--selector", "models", project=before)
        print(f"{rows} snapshots; first build before: {old[0]:.0f} s", flush=True)
        one.server.psql(
            "DROP SCHEMA tap_balance_marts CASCADE", "DROP INDEX tap_balance.balance_snapshot_at"
        )
        with one.disk() as peak:
            began = time.perf_counter()
            one.server.psql("CREATE INDEX balance_snapshot_at ON tap_balance.balance (snapshot_at)")
            index = time.perf_counter() - began
            first = one.dbt("build")
        print(f"now: {first[0]:.0f} s; {peak[0]:.1f} GiB", flush=True)
        more = one.hours(HOURS_MORE)
        one.check()
    ratio, share = (first[0] + index) / old[0], more[0] / first[0]
    return {
        "snapshots": f"{rows:,}",
        "first build: run, whole command": f"{first[0]:.0f} s, {first[1]:.0f} s",
        "the index on the loaded table, once": f"{index:.0f} s",
        f"first build with the models of before ({judging.BEFORE}; the index included)": (
            f"{old[0]:.0f} s, {old[1]:.0f} s"
        ),
        "first build and index / before, runs": f"{ratio:.2f} (goal: at most {RATIO}; "
        f"{'met' if ratio <= RATIO else '**not met**'})",
        f"one more hour: run, whole command (medians of {HOURS_MORE})": f"{more[0]:.1f} s, "
        f"{more[1]:.1f} s",
        "one more hour / first build, runs": f"{share:.1%} (goal: under {SHARE:.0%}; "
        f"{'met' if share < SHARE else '**not met**'})",
        "one more hour / first build, whole commands": f"{more[1] / first[1]:.1%}",
        "peak on disk, during the first build": f"{peak[0]:.1f} GiB",
        "load average of the machine": f"{os.getloadavg()[2]:.0f}",
    }


def measure_large(accounts: int, hours: int) -> dict[str, str]:
    """Only the columns that the models read are there, so that they fit on the disk."""
    with database(accounts, key="", unlogged="UNLOGGED") as one, one.disk() as peak:
        dropped = ", ".join(f"DROP COLUMN {column}" for column in UNREAD)
        one.server.psql(
            "ALTER SYSTEM SET fsync = off",
            "SELECT pg_reload_conf()",
            f"ALTER TABLE tap_balance.balance {dropped}",
        )
        one.dbt("parse")
        for first in range(YEAR - hours, YEAR, 730):
            one.load(first, min(first + 730, YEAR) - 1)
            print(f"loaded {first + 730} of {YEAR} hours: {peak[0]:.1f} GiB", flush=True)
        one.dbt("run-operation", "index_source")
        one.server.psql("VACUUM ANALYZE tap_balance.balance")
        rows = one.count("tap_balance.balance")
        print(f"{rows} snapshots: {peak[0]:.1f} GiB", flush=True)
        first_build = one.dbt("build")
        print(f"first build: {first_build[0]:.0f} s, {peak[0]:.1f} GiB", flush=True)
        run, command = one.hours(HOURS_MORE)
        one.check()
    return {
        "accounts": f"{accounts:,}",
        f"snapshots of {hours / 24:.0f} days, of the columns that are read": f"{rows:,}",
        "first build: run, whole command": f"{first_build[0]:.0f} s, {first_build[1]:.0f} s",
        f"one more hour: run, whole command (medians of {HOURS_MORE})": f"{run:.1f} s, "
        f"{command:.1f} s",
        "one more hour / first build, runs": f"{run / first_build[0]:.1%}",
        "peak on disk": f"{peak[0]:.1f} GiB",
        "load average of the machine": f"{os.getloadavg()[2]:.0f}",
    }


def table(figures: Mapping[str, str]) -> str:
    rows = "\n".join(f"| {name} | {figure} |" for name, figure in figures.items())
    return f"| measure | |\n|---|---|\n{rows}\n"


def section(figures: Mapping[str, str], accounts: int) -> str:
    lock = (ROOT / "requirements" / "dbt.txt").read_text(encoding="utf-8")
    pins = [
        line.split()[0].replace("==", " ")
        for line in lock.splitlines()
        if line.startswith(("dbt-core==", "dbt-postgres=="))
    ]
    return (
        f"{OF_THE_MODELS}\n\n"
        f"A year of hourly snapshots of {accounts:,} accounts in a Postgres with its default "
        f"settings, {os.cpu_count()} cores;\n{', '.join(pins)}. A run is what dbt counts from the "
        "first statement to the last;\na whole command (`dbt build`) adds the start of dbt.\n\n"
        f"{table(figures)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, and RESULTS.md stays")
    parser.add_argument(
        "--large",
        type=int,
        metavar="ACCOUNTS",
        help="number of them; 10000 take 50 GB and an hour",
    )
    parser.add_argument("--hours", type=int, default=YEAR, help="of their history; a year")
    options = parser.parse_args()
    meltano_project.forget_the_users_settings()
    text = RESULTS.read_text(encoding="utf-8")
    others, _, own = text.partition(OF_THE_MODELS)
    own, _, large = own.partition(LARGE)
    if options.large:
        figures = measure_large(options.large, options.hours)
        large = f"\n\n{table(figures)}"
        own = f"{OF_THE_MODELS}{own}"
    else:
        accounts = 100 if options.quick else 1000
        figures = measure(accounts, YEAR // 10 if options.quick else YEAR)
        own = section(figures, accounts)
    print("\n".join(f"{name}: {figure}" for name, figure in figures.items()))
    if not options.quick:
        parts = [others.rstrip(), own.rstrip(), (LARGE + large).rstrip() if large else ""]
        RESULTS.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
