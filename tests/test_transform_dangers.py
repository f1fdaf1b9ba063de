"""Accounts in danger that the models of version 0.1 did not name in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from history import Snapshot
from modelled import MARTS
from warehouses import dbt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from warehouses import InPostgres

pytestmark = pytest.mark.e2e

NOW = datetime(2026, 3, 2, 14)  # noqa: DTZ001 - UTC, without a zone, as in the tables
UNIT = 10_000
DAILY = Decimal(100 * UNIT) / 24


@dataclass(frozen=True)
class Danger:
    """One account: what it has left, what it burned in the hours before, and the truth."""

    left: Decimal
    days: int
    """Of hourly snapshots, which end now."""

    burned: Callable[[int], Decimal]
    """In the hour that ended N hours ago."""

    truth_days: Decimal
    status: str
    reasons: set[str]
    currency_since: int | None = None
    """Hours for which the currency has been known; None is always."""


DANGERS = {
    "idle, then 1,000 an hour": Danger(
        Decimal(1000 * UNIT), 30, lambda ago: Decimal(1000 * UNIT if ago < 5 else 0),
        Decimal(1) / 24, "ok", {"surge"},
    ),
    "100 a day, then 200 an hour": Danger(
        Decimal(100 * UNIT), 30, lambda ago: Decimal(200 * UNIT) if ago < 8 else DAILY,
        Decimal("0.5") / 24, "critical", {"critical", "surge"},
    ),
    "100 a day, then 130 an hour": Danger(
        Decimal(220 * UNIT), 30, lambda ago: Decimal(130 * UNIT) if ago < 6 else DAILY,
        Decimal("1.7") / 24, "critical", {"critical", "surge"},
    ),
    "three hours of 110, where two of 100 are usual": Danger(
        Decimal(7000 * UNIT), 30,
        lambda ago: Decimal((110 if ago < 3 else 100 if ago % 24 in {1, 2} else 50) * UNIT),
        Decimal(7000) / 110 / 24, "low", {"low", "surge"},
    ),
    "six complete days": Danger(
        Decimal(10 * UNIT), 7, lambda _: DAILY * 10,
        Decimal("0.01"), "critical", {"critical"},
    ),
    "0.05 left": Danger(
        Decimal(500), 33, lambda _: Decimal(0),
        Decimal(0), "critical", {"critical"},
    ),
    "currency is set": Danger(
        Decimal(200 * UNIT), 30, lambda _: DAILY,
        Decimal(2), "critical", {"critical"}, currency_since=3,
    ),
    "first day": Danger(
        Decimal(500 * UNIT), 0, lambda _: Decimal(100 * UNIT),
        Decimal(5) / 24, "critical", {"critical"},
    ),
    "first day, enough": Danger(
        Decimal(50_000 * UNIT), 0, lambda _: Decimal(100 * UNIT),
        Decimal(500) / 24, "accumulating", set(),
    ),
}  # fmt: skip


def snapshots(name: str, danger: Danger) -> list[Snapshot]:
    rows = []
    left = danger.left
    for ago in range(danger.days * 24 + 15 if danger.days else 6):
        at = NOW - timedelta(hours=ago)
        known = danger.currency_since is None or ago < danger.currency_since
        currency = "USD" if known else None
        rows.append(Snapshot(name, "sms", currency, at, at, int(left), 0))
        left += danger.burned(ago)
    return rows


def test_each_is_named_in_time_with_a_range_that_holds_the_truth(
    in_postgres: Callable[[str], InPostgres], tmp_path: Path
) -> None:
    warehouse = in_postgres("dangers")
    for name, danger in DANGERS.items():
        warehouse.load(snapshots(name, danger))
    built = dbt(warehouse, tmp_path, "build", as_of=NOW + timedelta(minutes=5))
    assert built.status == 0, built.log
    found = warehouse.query(
        "SELECT account, status, currency, days_left_low, days_left_high, surge_hours_left"
        f" FROM {MARTS}.balance_runway"
    )
    assert {row[0]: (row[1], row[2]) for row in found} == {
        name: (danger.status, "USD") for name, danger in DANGERS.items()
    }
    alerts = warehouse.query(f"SELECT account, reason FROM {MARTS}.balance_alerts")
    assert sorted(alerts) == sorted(
        (name, reason) for name, danger in DANGERS.items() for reason in danger.reasons
    )
    for row in found:
        name, (low, high, hours) = str(row[0]), row[3:]
        danger = DANGERS[name]
        if danger.days:
            assert Decimal(low or 0) <= danger.truth_days, name
            assert high is None or danger.truth_days <= Decimal(high), name
        elif danger.status == "critical":
            assert hours == "5.0"
        if "surge" in danger.reasons:
            assert abs(Decimal(hours or "NaN") - danger.truth_days * 24) <= Decimal("0.1"), name
