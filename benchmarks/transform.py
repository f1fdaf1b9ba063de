"""Build the dbt models of a year of hourly snapshots, then after one more hour.

Two times of each `dbt build`: what dbt counts from the first statement to the last, and the whole
command as a scheduler runs it, which adds three seconds of dbt's start and end to either. It writes
the last section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo"))
import embedded  # noqa: E402
import meltano_project  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

DBT = ROOT / ".venvs" / "dbt" / "bin" / "dbt"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
HEADING = "## The dbt models"
YEAR = 8760
HOURS_MORE = 5
# So that the last of those hours is this one.
START = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0, tzinfo=None) - (
    timedelta(hours=YEAR + HOURS_MORE - 1)
)
SHARE = 0.05
"""Of the first build's time, at most this much for one more hour."""

# The table as target-postgres makes it.
TABLE = """
CREATE TABLE tap_balance.balance (
  snapshot_id text PRIMARY KEY, account text NOT NULL, product text NOT NULL,
  snapshot_at timestamp NOT NULL, observed_at timestamp NOT NULL, currency text,
  balance10000 bigint NOT NULL, gift_balance10000 bigint NOT NULL,
  total_balance10000 bigint NOT NULL, balance numeric(38, 4) NOT NULL,
  gift_balance numeric(38, 4) NOT NULL, total_balance numeric(38, 4) NOT NULL
)
"""
# Each account falls by about its rate an hour, tops up now and then, and has a gift that expires;
# one snapshot in about 500 is missing.
ROWS = """
INSERT INTO tap_balance.balance
SELECT account || '@' || to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), account, 'sms', at,
  at + interval '2 seconds', 'USD', paid, gift, paid + gift,
  paid / 10000.0, gift / 10000.0, (paid + gift) / 10000.0
FROM generate_series({first}, {last}) AS hour
CROSS JOIN generate_series(1, {accounts}) AS number
CROSS JOIN LATERAL (
  SELECT 'account-' || number AS account, timestamp '{start}' + hour * interval '1 hour' AS at,
    mod(abs(hashint8(hour * 100003 + number)::bigint), 1000) AS luck
) AS named
CROSS JOIN LATERAL (
  SELECT number * 130 * (900 - mod(hour + number * 7, 700 + number)) - number * luck / 10 AS paid,
    CASE WHEN mod(hour + number * 13, 1500) < 300 THEN 50000 ELSE 0 END AS gift
) AS amounts
WHERE luck <> 7
"""


def build(server: embedded.Postgres, folder: Path) -> tuple[float, float]:
    """Seconds of the run, as dbt counts them, and of the whole command."""
    began = time.perf_counter()
    subprocess.run(
        [DBT, "build"],
        cwd=ROOT / "transform",
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ
        | {
            "DBT_TARGET": "postgres",
            "DBT_POSTGRES_HOST": server.socket_folder,
            "DBT_TARGET_PATH": str(folder),
            "DBT_LOG_PATH": str(folder),
        },
    )
    took = time.perf_counter() - began
    counted: float = json.loads((folder / "run_results.json").read_text())["elapsed_time"]
    return counted, took


def measure(accounts: int, hours: int) -> dict[str, str]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded.postgres(Path(folder) / "data") as server,
    ):

        def load(first: int, last: int) -> None:
            server.psql(
                ROWS.format(first=first, last=last, accounts=accounts, start=START.isoformat())
            )

        server.psql("CREATE SCHEMA tap_balance", TABLE)
        target = Path(folder) / "target"
        build(server, target)  # so that dbt has parsed the project, as on any day but the first
        server.psql("DROP SCHEMA tap_balance_marts CASCADE")
        load(YEAR - hours, YEAR - 1)
        server.psql("VACUUM ANALYZE tap_balance.balance")
        rows = int(server.psql("SELECT count(*) FROM tap_balance.balance", options=("-At",)))
        first = build(server, target)
        more = []
        for hour in range(YEAR, YEAR + HOURS_MORE):
            load(hour, hour)
            more.append(build(server, target))
        changes = int(
            server.psql("SELECT count(*) FROM tap_balance_marts.balance_changes", options=("-At",))
        )
        loaded = int(server.psql("SELECT count(*) FROM tap_balance.balance", options=("-At",)))
        if changes != loaded:
            sys.exit(f"{changes} changes of {loaded} snapshots: this is a defect.")
    run, command = (statistics.median(times) for times in zip(*more, strict=True))
    share = run / first[0]
    return {
        "snapshots": f"{rows:,}",
        "first build: run, whole command": f"{first[0]:.0f} s, {first[1]:.0f} s",
        f"one more hour: run, whole command (medians of {HOURS_MORE})": f"{run:.1f} s, "
        f"{command:.1f} s",
        "one more hour / first build, runs": f"{share:.1%} (goal: under {SHARE:.0%}; "
        f"{'met' if share < SHARE else '**not met**'})",
        "one more hour / first build, whole commands": f"{command / first[1]:.1%}",
    }


def section(figures: Mapping[str, str], accounts: int) -> str:
    rows = "\n".join(f"| {name} | {figure} |" for name, figure in figures.items())
    lock = (ROOT / "requirements" / "dbt.txt").read_text(encoding="utf-8")
    pins = [
        line.split()[0].replace("==", " ")
        for line in lock.splitlines()
        if line.startswith(("dbt-core==", "dbt-postgres=="))
    ]
    return (
        f"{HEADING}\n\n"
        f"A year of hourly snapshots of {accounts:,} accounts in a Postgres with its default "
        f"settings, {os.cpu_count()} cores; {', '.join(pins)}. A run is what dbt counts from\n"
        "the first statement to the last; a whole command (`dbt build`) adds the "
        "start of dbt.\n\n"
        f"| measure | |\n|---|---|\n{rows}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, and RESULTS.md stays")
    quick = parser.parse_args().quick
    meltano_project.forget_the_users_settings()
    accounts = 100 if quick else 1000
    figures = measure(accounts, YEAR // 10 if quick else YEAR)
    print("\n".join(f"{name}: {figure}" for name, figure in figures.items()))
    if not quick:
        others = RESULTS.read_text(encoding="utf-8").split(HEADING)[0].rstrip()
        RESULTS.write_text(f"{others}\n\n{section(figures, accounts)}", encoding="utf-8")


if __name__ == "__main__":
    main()
