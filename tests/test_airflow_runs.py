"""Whole runs of the DAGs in a real Airflow, with the real Meltano, target, dbt and Postgres."""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psycopg
import pytest
from deployment import ACCOUNTS, DATABASE_SECRET, ODD, account, secrets_below, secrets_in, tasks_of

from tap_balance.accounts import shard_of
from tap_balance.sandbox import SECRET

if TYPE_CHECKING:
    from airflow_home import Airflow
    from deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

HOST = socket.gethostname()
EXPIRED = account("largest", "expired")
"""In the same shard of two as `example`."""


def test_a_wrong_key_is_one_red_task_with_the_taps_line_and_costs_no_other_account_its_row(
    deployment: Deployment,
) -> None:
    assert shard_of("largest", 2) == shard_of("example", 2) == shard_of(ODD, 2) == 2
    assert shard_of("empty", 2) == 1
    settings = {"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, EXPIRED]}
    status, state, tasks = deployment.run(settings, SHARDS="2", RETRIES="1")
    assert (status, state) == (1, "failed"), deployment.output
    assert tasks == {
        "plan": ("success", 1),
        "load 1/2": ("success", 1),
        "load 2/2": ("failed", 1),  # no retry cures a wrong key
        "check": ("upstream_failed", 0),
        "publish": ("success", 1),
    }
    assert (
        f"AirflowFailException: shard 2/2 on {HOST}: account 'largest': HTTP 401, code 2002"
    ) in deployment.output
    midnight = datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT00:00:00Z")
    assert deployment.query("SELECT snapshot_id FROM tap_balance.balance ORDER BY 1") == sorted(
        (f"{entry['account']}@{midnight}",) for entry in ACCOUNTS
    )

    # Cured, and once more in the same interval; what the task starts logs all that it can. (Airflow
    # itself does so under the scheduler: `dags test` masks nothing, and logs what it shall mask.)
    cured = [*ACCOUNTS, account("largest", "largest")]
    debug = {
        "MELTANO_CLI_LOG_LEVEL": "debug",
        "TAP_BALANCE_LOGLEVEL": "DEBUG",
    }
    status, state, tasks = deployment.run({"TAP_BALANCE_ACCOUNTS": cured}, env=debug)
    assert (status, state) == (0, "success"), deployment.output
    assert f"All 4 accounts have a row of {midnight}" in deployment.output
    rows = deployment.query("SELECT account, snapshot_id FROM tap_balance.balance ORDER BY 1")
    assert rows == sorted((e["account"], f"{e['account']}@{midnight}") for e in cured)
    assert secrets_in(deployment.output.encode()) == []
    assert secrets_below(deployment.home) == []


def test_a_destination_that_is_down_is_retried_and_nothing_is_published(
    deployment: Deployment,
) -> None:
    settings = {
        "TAP_BALANCE_ACCOUNTS": ACCOUNTS,
        "TARGET_POSTGRES_SQLALCHEMY_URL": "postgresql+psycopg://postgres@/postgres?host=/nowhere",
    }
    status, state, tasks = deployment.run(settings, RETRIES="1")
    assert (status, state) == (1, "failed"), deployment.output
    assert tasks == {
        "plan": ("success", 1),
        "load 1/1": ("failed", 2),
        "check": ("upstream_failed", 0),
        "publish": ("skipped", 1),
    }
    message = deployment.output.rpartition("AirflowException: ")[2].splitlines()[0]
    assert message.startswith(f"shard 1/1 on {HOST}: (psycopg.OperationalError) ")
    assert 'connection to server on socket "/nowhere/.s.PGSQL.5432" failed' in message
    assert "stdout" not in message  # what follows from it


def exceptions(airflow: Airflow, task: str) -> list[str]:
    """The messages of the exceptions in a task's log."""
    [log] = (airflow.home / "logs").rglob(f"task_id={task}/attempt=1.log")
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        detail["exc_value"]
        for event in events
        for detail in event.get("error_detail", ())
        if event["event"] == "Task failed with exception"
    ]


def test_the_scheduler_runs_both_dags_whose_checks_name_lost_rows_and_empty_accounts_and_no_secret(
    deployment: Deployment,
) -> None:
    # Two accounts bear the name of a secret, to see that one that comes up is masked. The database
    # loses their rows; older ones count for nothing.
    unlucky = [account(SECRET, "empty"), account(DATABASE_SECRET, "empty")]
    with psycopg.connect(deployment.uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tap_balance")
        connection.execute(
            f"CREATE TABLE tap_balance.balance AS SELECT '{SECRET}@2026-01-01T00:00:00Z' AS "
            f"snapshot_id, '{SECRET}' AS account, timestamp '2026-01-01' AS snapshot_at"
        )
        connection.execute("ALTER TABLE tap_balance.balance ADD PRIMARY KEY (snapshot_id)")
        connection.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        connection.execute(
            "CREATE TRIGGER lose BEFORE INSERT ON tap_balance.balance FOR EACH ROW "
            "WHEN (new.account LIKE '%secret') EXECUTE FUNCTION lose()"
        )
    airflow = deployment.airflow({"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, *unlucky]})
    airflow.environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
    with airflow.running():
        deadline = time.monotonic() + 240
        while len(ended := airflow.query(ENDED)) < 2:
            assert time.monotonic() < deadline, (deployment.home / "scheduler.log").read_text()
            time.sleep(0.5)
    (load, load_state), (runway, runway_state) = ended
    assert load.startswith("scheduled__")
    assert load_state == "failed"
    assert tasks_of(airflow, load) == {
        "plan": ("success", 1),
        "load 1/1": ("success", 1),
        "check": ("failed", 1),
        "publish": ("success", 1),
    }
    midnight = datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT00:00:00Z")
    assert exceptions(airflow, "check") == [
        f"2 of 5 rows are missing: ***@{midnight}; ***@{midnight}"
    ]
    assert runway.startswith("asset_triggered__")
    assert runway_state == "failed"
    assert tasks_of(airflow, runway) == {"build": ("success", 1), "alerts": ("failed", 1)}
    [message] = exceptions(airflow, "alerts")
    assert "account empty is empty" in message
    # The scheduler passes on what a task prints; Airflow itself does not mask that.
    printed = deployment.home / "scheduler.log"
    lines = printed.read_bytes().splitlines()
    names = [line for line in lines if secrets_in(line)]
    assert names
    assert [line for line in names if b"task_id=check" not in line] == []
    assert set(secrets_below(deployment.home)) <= {str(printed)}


ENDED = "SELECT run_id, state FROM dag_run WHERE end_date IS NOT NULL ORDER BY id"
