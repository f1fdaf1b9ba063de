"""The demo's last act: an account that nobody tops up is announced before it is empty."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import embedded

DAYS = 28
BEFORE_THE_END = {"six days before": 6, "two days before": 2, "at the end": 0}

# 0.4000 an hour, give or take; nothing is left in the hour that has begun.
HISTORY = """
INSERT INTO tap_balance.balance
SELECT account || '@' || to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), account, 'sms', at,
  at + interval '2 seconds', 'USD', paid, 0, paid, paid / 10000.0, 0, paid / 10000.0
FROM generate_series(0, {hours}) AS hours
CROSS JOIN LATERAL (
  SELECT 'drained' AS account, timestamp '{end}' - hours * interval '1 hour' AS at,
    hours * 4000 + mod(hours * 7919, 2000) AS paid
) AS amounts
"""


def load(database: embedded.Postgres, now: datetime) -> None:
    """Add the hourly snapshots of four weeks of one account, which end in this hour."""
    end = now.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    database.psql(HISTORY.format(hours=DAYS * 24, end=end.isoformat(sep=" ")))


def moments(now: datetime) -> Iterator[tuple[str, tuple[str, ...]]]:
    """When to look, and dbt's arguments for it: make the models and judge, as of that time."""
    for title, days in BEFORE_THE_END.items():
        as_of = (now - timedelta(days=days)).isoformat()
        variables = json.dumps({"as_of": as_of})
        yield title, ("build", "--vars", variables)


def alert(database: embedded.Postgres) -> str:
    """The alert of the account."""
    return database.psql(
        "SELECT message FROM tap_balance_marts.balance_alerts "
        "WHERE account = 'drained' AND reason <> 'surge' AND state <> 'over'",
        options=("-At",),
    ).strip()
