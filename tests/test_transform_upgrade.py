"""Tables that version 0.1 of the dbt project has built, and the command that keeps them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg
import pytest
from history import Snapshot
from modelled import MARTS
from warehouses import dbt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from warehouses import InPostgres

pytestmark = pytest.mark.e2e

# As version 0.1 has made them, less the columns of balance_daily, which is rebuilt.
OLD_TABLES = f"""
    CREATE SCHEMA {MARTS};
    CREATE TABLE {MARTS}.balance_changes (
        account text, product text, currency text, previous_snapshot_at timestamp,
        snapshot_at timestamp, observed_at timestamp, elapsed_seconds bigint, is_gap boolean,
        previous_balance10000 bigint, balance10000 bigint, previous_gift_balance10000 bigint,
        gift_balance10000 bigint, total_balance10000 bigint, spend10000 numeric,
        top_up10000 numeric, gift_granted10000 numeric, gift_used_or_expired10000 numeric
    );
    CREATE INDEX ON {MARTS}.balance_changes (snapshot_at);
    CREATE INDEX ON {MARTS}.balance_changes (account, snapshot_at);
    CREATE TABLE {MARTS}.balance_daily (account text, day date, coverage text);
    CREATE TABLE {MARTS}.balance_latest (account text);
    CREATE TABLE {MARTS}.balance_runway (account text, burn_per_day_low10000 numeric);
"""
FIRST = datetime(2026, 1, 1)  # noqa: DTZ001 - UTC, without a zone, as in the tables
DAYS = 40
KEPT = 10
"""Days that the loaded table still has."""


def test_one_command_keeps_the_history_that_the_loaded_table_has_lost(
    in_postgres: Callable[[str], InPostgres], tmp_path: Path
) -> None:
    warehouse = in_postgres("upgrade")
    hour = Snapshot("a", "sms", "USD", FIRST, FIRST, 10_000_000, 0)
    rows = [
        replace(hour, at=at, observed_at=at, paid=10_000_000 - 2_400 * number)
        for number in range(DAYS * 24 + 1)
        for at in [FIRST + timedelta(hours=number)]
    ]
    warehouse.load(rows[-KEPT * 24 :])
    with psycopg.connect(warehouse.uri) as connection:
        connection.execute(OLD_TABLES.encode())
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {MARTS}.balance_changes VALUES ('a', 'sms', 'USD', %s, %s, %s, "
                "3600, false, %s, %s, 0, 0, %s, 2400, 0, 0, 0)",
                [
                    (before.at, row.at, row.at, before.paid, row.paid, row.paid)
                    for before, row in pairwise(rows[:-2])
                ],
            )
    as_of = rows[-1].at + timedelta(minutes=5)

    refused = dbt(warehouse, tmp_path, "build", as_of=as_of)
    assert refused.status == 1
    assert "was built by an earlier version; run `dbt run-operation upgrade_tables`" in (
        refused.log
    )
    count = f"SELECT count(*), sum(spend10000) FROM {MARTS}.balance_changes"
    assert warehouse.query(count) == [(str(DAYS * 24 - 2), str(2_400 * (DAYS * 24 - 2)))]

    for said in ("the rest is rebuilt by dbt build", "nothing to upgrade"):
        upgraded = dbt(warehouse, tmp_path, "run-operation", "upgrade_tables", as_of=as_of)
        assert upgraded.status == 0, upgraded.log
        assert said in upgraded.log
    built = dbt(warehouse, tmp_path, "build", as_of=as_of)
    assert built.status == 0, built.log
    assert warehouse.query(count) == [(str(DAYS * 24), str(2_400 * DAYS * 24))]
    assert warehouse.query(
        f"SELECT count(*) FROM {MARTS}.balance_daily"
        " WHERE coverage = 'complete' AND spend10000 = 57600"
    ) == [(str(DAYS),)]
    assert warehouse.query(
        f"SELECT status, complete_days, burn_per_day10000 FROM {MARTS}.balance_runway"
    ) == [("ok", "28", "57600")]
