"""Whole runs of the DAGs in a real Airflow, with the real Meltano, target, dbt and Postgres."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from deployment import ACCOUNTS, ODD, account, secrets_below, secrets_in

from tap_balance.accounts import shard_of

if TYPE_CHECKING:
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
    # What the task starts logs all that it can. (Airflow itself does so under the scheduler:
    # `dags test` masks nothing, and logs what it shall mask.)
    debug = {"MELTANO_CLI_LOG_LEVEL": "debug", "TAP_BALANCE_LOGLEVEL": "DEBUG"}
    settings = {"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, EXPIRED]}
    status, state, tasks = deployment.run(settings, env=debug, SHARDS="2", RETRIES="1")
    assert (status, state) == (1, "failed"), deployment.output
    assert tasks == {
        "plan": ("success", 1),
        "load 1/2": ("success", 1),
        "load 2/2": ("failed", 1),  # no retry cures a wrong key
        "check": ("upstream_failed", 0),
        "publish": ("success", 1),
    }
    assert (
        f"AirflowFailException: load 2/2 on {HOST}: account 'largest': HTTP 401, code 2002"
    ) in deployment.output
    midnight = datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT00:00:00Z")
    assert deployment.query("SELECT snapshot_id FROM tap_balance.balance ORDER BY 1") == sorted(
        (f"{entry['account']}@{midnight}",) for entry in ACCOUNTS
    )
    assert secrets_in(deployment.output.encode()) == []
    assert secrets_below(deployment.home) == []
