"""A quarter of generated snapshots: loaded, modelled in three steps, and what the models say."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import histories
from parts import ROOT, VENVS
from warehouses import dbt, environment

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from history import Snapshot
    from shared_dbt import Done
    from warehouses import Row, Warehouse

HOUR = timedelta(hours=1)
IN_AN_OUTAGE = histories.START + 987 * HOUR
"""40 hours into 75 of account 1: longer than an incremental run looks back."""

PAGE_MADE_AT = histories.START + histories.HOURS * HOUR + timedelta(minutes=23)

KINDS = ("postgres", "snowflake")
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
        spend10000, top_up10000, gift_granted10000, gift_used_or_expired10000,
        highest_hourly_burn10000
    FROM {MARTS}.balance_daily
"""
LATEST = f"""
    SELECT account, snapshot_at, age_seconds, balance10000, balance, gift_balance, total_balance
    FROM {MARTS}.balance_latest
"""
RUNWAY = f"""
    SELECT account, status, complete_days, burn_per_day10000,
        days_left, days_left_low, days_left_high, runs_out_on, surge_hours_left, top_up10000
    FROM {MARTS}.balance_runway
"""
ALERTS = f"""
    SELECT alert_id, account, reason, severity, state, since, CAST(ended_at AS varchar), message
    FROM {MARTS}.balance_alerts
"""


@dataclass
class Build:
    """What the models contain at one time, and what had been loaded by then."""

    as_of: datetime
    rows: list[Snapshot]
    changes: list[Row]
    daily: list[Row]
    latest: list[Row]
    runway: list[Row]
    alerts: list[Row]


@dataclass
class History:
    """A quarter that was loaded and modelled in three steps, the last two incrementally."""

    warehouse: Warehouse
    folder: Path
    builds: list[Build]
    page: Path

    def dbt(self, *arguments: str, as_of: datetime | None = None, **variables: object) -> Done:
        """Run dbt on it, at the time of the last step if there is no other."""
        as_of = as_of or self.builds[-1].as_of
        return dbt(self.warehouse, self.folder, *arguments, as_of=as_of, **variables)


def model(warehouse: Warehouse, folder: Path) -> History:
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
    builds: list[Build] = []
    for rows, hour in zip(steps, times, strict=True):
        as_of = hour + timedelta(minutes=20)
        warehouse.load(rows)
        # Also with accounts that are critical, stale and empty.
        done = dbt(warehouse, folder, "build", as_of=as_of)
        assert done.status == 0, done.log
        builds.append(
            Build(
                as_of,
                [*(builds[-1].rows if builds else []), *rows],
                *(warehouse.query(sql) for sql in (CHANGES, DAILY, LATEST, RUNWAY, ALERTS)),
            )
        )
    page = page_of(warehouse, folder, builds[-1].as_of, PAGE_MADE_AT)
    return History(warehouse, folder, builds, page)


def page_of(
    warehouse: Warehouse, folder: Path, as_of: datetime, now: datetime, **variables: object
) -> Path:
    """Write the page of the models of one time, as if it were made at another."""
    path = folder / f"report-{now:%H%M}.html"
    done = subprocess.run(
        [
            VENVS / "report" / "bin" / "python",
            ROOT / "transform" / "report.py",
            f"--dbt={warehouse.dbt.command(folder)}",
            f"--output={path}",
            f"--now={now.isoformat()}",
            f"--vars={json.dumps({'as_of': as_of.isoformat(), **variables})}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(warehouse, folder),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path
