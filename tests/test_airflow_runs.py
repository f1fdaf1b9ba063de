"""Whole runs of the DAG in a real Airflow, with the real Meltano, target and Postgres."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psycopg
import pytest
from deployment import ACCOUNTS, DATABASE_SECRET, ODD, account, secrets_below, secrets_in, tasks_of

from tap_balance.accounts import shard_of
from tap_balance.sandbox import SECRET

if TYPE_CHECKING:
    from deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

FAILING = account("largest", "expired")
"""In the same shard of two as `example`; its key has expired."""


def test_a_shard_that_fails_twice_is_named_and_leaves_one_row_of_every_other_account(
    deployment: Deployment,
) -> None:
    assert shard_of("largest", 2) == shard_of("example", 2) == shard_of(ODD, 2) == 2
    assert shard_of("empty", 2) == 1
    settings = {"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, FAILING]}
    status, state, tasks = deployment.run(settings, SHARDS="2", RETRIES="1")
    assert (status, state) == (1, "failed"), deployment.output
    assert tasks == {
        "shards": ("success", 1),
        "load 1/2": ("success", 1),
        "load 2/2": ("failed", 2),
        "check_freshness": ("failed", 1),
    }
    midnight = datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT00:00:00Z")
    assert (
        "AirflowFailException: shard 2/2 was not loaded; 1 of 4 accounts have no snapshot since "
        f"{midnight}: 'largest'"
    ) in deployment.output
    assert "account 'largest': HTTP 401, code 2002" in deployment.output
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
    assert "All 4 accounts have a snapshot since" in deployment.output
    rows = deployment.query("SELECT account, snapshot_id FROM tap_balance.balance ORDER BY 1")
    assert rows == sorted((e["account"], f"{e['account']}@{midnight}") for e in cured)

    for part in ("meltano", "tap-balance"):
        assert re.search(rf"\[debug +\] {part} ", deployment.output), part
    assert secrets_in(deployment.output.encode()) == []
    assert (deployment.home / "project" / ".meltano" / "shards").is_dir()  # is searched, too
    assert secrets_below(deployment.home) == []


def test_an_account_that_is_empty_fails_the_alert_with_its_name_and_numbers(
    deployment: Deployment,
) -> None:
    settings = {"TAP_BALANCE_ACCOUNTS": ACCOUNTS}
    status, state, tasks = deployment.run(settings, DBT="dbt-postgres")
    assert (status, state) == (1, "failed"), deployment.output
    assert tasks == {
        "shards": ("success", 1),
        "load 1/1": ("success", 1),
        "check_freshness": ("success", 1),
        "build": ("success", 1),
        "alert": ("failed", 1),
    }
    message = deployment.output.rpartition("AirflowFailException: ")[2].splitlines()[0]
    assert "account empty is empty: 0.0000 USD at " in message
    assert f"account {' '.join(ODD.split())} is empty: -0.0005 USD at " in message
    rows = deployment.query("SELECT account, status FROM tap_balance_marts.balance_runway")
    assert sorted(rows) == [("empty", "empty"), ("example", "accumulating"), (ODD, "empty")]
    assert secrets_in(deployment.output.encode()) == []
    assert secrets_below(deployment.home) == []


def test_the_scheduler_runs_the_check_which_names_what_the_database_lost_and_masks_secrets(
    deployment: Deployment,
) -> None:
    # What was there before counts for nothing, even where a time zone makes it look new.
    with psycopg.connect(deployment.uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tap_balance")
        connection.execute(
            "CREATE TABLE tap_balance.balance AS SELECT 'empty@2026-01-01T00:00:00Z' AS "
            "snapshot_id, 'empty' AS account, timestamp '2999-01-01' AS snapshot_at"
        )
        connection.execute("ALTER TABLE tap_balance.balance ADD PRIMARY KEY (snapshot_id)")
        connection.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        connection.execute(
            "CREATE TRIGGER lose BEFORE INSERT ON tap_balance.balance FOR EACH ROW "
            "WHEN (new.account <> 'example') EXECUTE FUNCTION lose()"
        )
    # Two accounts bear the name of a secret, to see that one that comes up is masked.
    unlucky = [account(SECRET, "empty"), account(DATABASE_SECRET, "empty")]
    airflow = deployment.airflow({"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, *unlucky]})
    airflow.environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
    with airflow.running():
        deadline = time.monotonic() + 120
        while not (
            ended := airflow.query("SELECT run_id, state FROM dag_run WHERE end_date IS NOT NULL")
        ):
            assert time.monotonic() < deadline, (deployment.home / "scheduler.log").read_text()
            time.sleep(0.5)
    [(run, state)] = ended
    assert run.startswith("scheduled__")
    assert state == "failed"
    assert tasks_of(airflow, run) == {
        "shards": ("success", 1),
        "load 1/1": ("success", 1),
        "check_freshness": ("failed", 1),
    }
    [log] = (deployment.home / "logs").rglob("task_id=check_freshness/attempt=1.log")
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    [message] = [
        detail["exc_value"]
        for event in events
        for detail in event.get("error_detail", ())
        if event["event"] == "Task failed with exception"
    ]
    assert re.fullmatch(
        r"4 of 5 accounts have no snapshot since \S+T00:00:00Z: "
        + re.escape(f"{ODD!r}, 'empty', '***', '***'"),
        message,
    ), message
    assert "account 'empty': no snapshot since" in log.read_text(encoding="utf-8")
    # The scheduler passes on what a task prints; Airflow itself does not mask that.
    printed = deployment.home / "scheduler.log"
    lines = printed.read_bytes().splitlines()
    assert any(b"[debug" in line for line in lines)
    names = [line for line in lines if secrets_in(line)]
    assert [line for line in names if b"task_id=check_freshness" not in line] == []
    assert set(secrets_below(deployment.home)) <= {str(printed)}
