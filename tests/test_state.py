"""Meltano's own state store: whatever became of a run, the next one is right."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from bank import Account
from rows import expected_rows
from runners import Destination, Meltano
from targets import Load, Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import embedded
    from bank import Bank
    from rows import Row
    from targets import Target

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]
ACCOUNTS = [Account(f"a{number}", number) for number in range(4)]


@dataclass(frozen=True)
class Store:
    """A state store, and a pipeline into Postgres that uses it.

    Attributes:
        path: Of the store: a file, or the URI of a database.
    """

    path: str
    meltano: Meltano
    destination: Destination

    @property
    def bookmark(self) -> str:
        """What `meltano state get` shows."""
        state_id = f"prod:tap-balance-to-target-postgres:{self.destination.target.name}"
        state = json.loads(self.meltano.run("state", "get", state_id))
        bookmark: str = state["singer_state"]["bookmarks"]["balance"]["replication_key_value"]
        return bookmark

    def age(self) -> None:
        """Let the last sign of life of every run lie ten minutes back, as after a long pause."""
        connect = sqlite3.connect if self.path.endswith(".db") else psycopg.connect
        with closing(connect(self.path)) as connection:
            found = connection.execute("UPDATE runs SET last_heartbeat_at = '2026-01-01 00:00:00'")
            assert found.rowcount
            connection.commit()


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: embedded.Postgres
) -> Iterator[Store]:
    with closing(Postgres(postgres)) as target:
        path = str(tmp_path / "state.db")
        uri = f"sqlite:///{path}"
        if request.param == "postgres":
            path, uri = target.database.uri, target.database.sqlalchemy_url
        runner = Meltano(tmp_path, {"MELTANO_DATABASE_URI": uri})
        yield Store(path, runner, Destination("postgres", target, runner))


def test_the_next_run_is_right_after_success_partial_failure_and_kill(
    store: Store, bank: Bank
) -> None:
    load, target = store.destination.load, store.destination.target
    good = Load(bank.settings(ACCOUNTS), "2026-01-31T10:00:00Z")
    assert load(good) == 0
    assert target.rows() == expected_rows(ACCOUNTS, good.at)
    assert store.bookmark == "2026-01-31T10:00:00Z"

    # Some failed: the others' rows and the state are there; the next run, still within the
    # interval, adds what was missing and doubles nothing.
    refused = [*ACCOUNTS[:3], replace(ACCOUNTS[3], error="expired")]
    assert load(Load(bank.settings(refused), "2026-01-31T11:00:00Z")) == 1
    assert of_hour(target, 11) == expected_rows(ACCOUNTS[:3], "2026-01-31T11:00:00Z")
    assert store.bookmark == "2026-01-31T11:00:00Z"
    assert load(replace(good, at="2026-01-31T11:30:00Z")) == 0
    assert of_hour(target, 11) == expected_rows(ACCOUNTS, "2026-01-31T11:30:00Z")

    # Killed with two of four rows written. Meltano takes it to be running for five minutes and
    # says so; `--force`, or a run after that, writes all of the interval's rows, each once.
    killed = replace(good, at="2026-01-31T12:00:00Z", batch_rows=2)
    with (
        bank.holding("a2", "a3"),
        store.destination.runner.start(target, killed) as running,
    ):
        running.until(lambda: bool(of_hour(target, 12)))
        running.kill()
    assert of_hour(target, 12) == expected_rows(ACCOUNTS[:2], "2026-01-31T12:00:00Z")
    assert store.bookmark == "2026-01-31T11:00:00Z"
    with store.destination.runner.start(target, killed) as running:
        assert running.wait() == 1
        assert "pipeline is already running" in running.output
    assert load(replace(killed, after_kill=True)) == 0
    assert of_hour(target, 12) == expected_rows(ACCOUNTS, "2026-01-31T12:00:00Z")
    store.age()
    assert load(replace(good, at="2026-01-31T13:00:00Z")) == 0
    assert of_hour(target, 13) == expected_rows(ACCOUNTS, "2026-01-31T13:00:00Z")
    assert store.bookmark == "2026-01-31T13:00:00Z"
    assert len(target.rows()) == 4 * 4


def of_hour(target: Target, hour: int) -> list[Row]:
    return [row for row in target.rows() if row.snapshot_at.hour == hour]
