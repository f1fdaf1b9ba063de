"""Run by a test: `make demo-airflow` with a DAG beside, passwords, and all that can be logged.

Arguments: the file of the DAG, a file that the test makes when the demo may end, and JSON of more
environment variables for Airflow.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from parts import ROOT

sys.path.insert(0, str(ROOT / "demo"))

import airflow_demo
from deployment import DATABASE_SECRET
from steps import start

if TYPE_CHECKING:
    import embedded
    from airflow_home import Airflow

make_airflow = airflow_demo.make_airflow
show = airflow_demo.show
DEBUG = {
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
    "MELTANO_CLI_LOG_LEVEL": "debug",
    "TAP_BALANCE_LOGLEVEL": "DEBUG",
}


def make_watched(base_url: str, database: embedded.Postgres) -> Airflow:
    """Add to the demo's Airflow."""
    airflow = make_airflow(base_url, database)
    shutil.copy(sys.argv[1], airflow.dags)
    connection = airflow.environment["AIRFLOW_CONN_TAP_BALANCE"]
    destination = json.loads(airflow.environment["AIRFLOW_CONN_TAP_BALANCE_DESTINATION"])
    airflow.environment |= {
        **DEBUG,
        **json.loads(sys.argv[3]),
        "AIRFLOW_CONN_TAP_BALANCE": connection.replace(":@/", f":{DATABASE_SECRET}@/"),
        "AIRFLOW_CONN_TAP_BALANCE_DESTINATION": json.dumps(
            destination | {"password": DATABASE_SECRET}
        ),
    }
    assert DATABASE_SECRET in airflow.environment["AIRFLOW_CONN_TAP_BALANCE"]
    return airflow


def show_when_seen(airflow: Airflow, database: embedded.Postgres, runs: list[str]) -> None:
    """Do not end before the test has seen what it waits for, or has given up."""
    deadline = time.monotonic() + 120
    while not Path(sys.argv[2]).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    show(airflow, database, runs)


airflow_demo.make_airflow = make_watched
airflow_demo.show = show_when_seen
start(airflow_demo.main)
