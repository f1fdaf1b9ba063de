"""`make demo-airflow`: a real Airflow runs the DAG by its schedule, and the rows are shown.

It starts the sandbox, a Postgres out of a wheel, and Airflow's own scheduler, DAG processor and API
server on SQLite. The DAG is the file that users copy, unchanged; its schedule, every minute here,
comes from the environment.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING

from airflow_home import Airflow

from demo import OUTPUT, say, servers, start, step, table_of
from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    import embedded

SHARDS = 2
PATIENCE = 150.0
"""Seconds until a run has to be finished."""

HOME = OUTPUT / "airflow"


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    with servers() as (base_url, database), contextlib.ExitStack() as stack:
        airflow = make_airflow(base_url, database)
        with step("Making Airflow's database"):
            migrated = airflow.run("db", "migrate")
            if migrated.returncode:
                sys.exit(f"\nairflow db migrate failed:\n{migrated.stdout}")
        with step("Starting Airflow; its DAG processor picks the DAG up"):
            stack.enter_context(airflow.running())
            wait_for(airflow, "SELECT dag_id FROM dag WHERE dag_id = 'tap_balance'")
        with step("A scheduled run: the shards at once, then the checks and the models"):
            [(run, state)] = wait_for(
                airflow,
                "SELECT run_id, state FROM dag_run WHERE run_type = 'scheduled' "
                "AND state IN ('success', 'failed') ORDER BY id LIMIT 1",
            )
        show(airflow, database, run)
        with step("Ending Airflow"):
            stack.close()
    if state != "success":
        sys.exit(f"The run {run} ended as {state}; its logs are in {HOME}/logs.")
    say(f"\nDone in {time.monotonic() - started:.0f} s; everything that was started is stopped.")
    say(
        f"Airflow's logs are in {HOME.relative_to(OUTPUT.parent)}. For your own Airflow, copy\n"
        "orchestrate/dags/tap_balance.py; its first lines say which two connections it needs."
    )


def make_airflow(base_url: str, database: embedded.Postgres) -> Airflow:
    """Configure an Airflow for the sandbox and this Postgres."""
    return Airflow(
        HOME,
        settings={
            "TAP_BALANCE_BASE_URL": base_url,
            "TAP_BALANCE_CURRENCY": "USD",
            "TAP_BALANCE_ACCOUNTS": settings_of(base_url)["accounts"],
            "TARGET_POSTGRES_SQLALCHEMY_URL": database.sqlalchemy_url,
            "DBT_POSTGRES_HOST": database.socket_folder,
        },
        destination={
            "conn_type": "postgres",
            "host": database.socket_folder,
            "login": "postgres",
            "schema": "postgres",
        },
        constants={"MINUTES": "1", "SHARDS": str(SHARDS), "RETRY_SECONDS": "2"},
    )


def wait_for(airflow: Airflow, sql: str) -> list[tuple[str, ...]]:
    """Wait until Airflow's metadata have such a row."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if rows := airflow.query(sql):
            return rows
        time.sleep(0.5)
    sys.exit(f"\nAirflow did not get there in {PATIENCE:.0f} s; its logs are in {HOME}.")


def show(airflow: Airflow, database: embedded.Postgres, run: str) -> None:
    """Print what the tasks of a run did, and the table."""
    say(f"\nThe tasks of {run}:\n")
    for task, shard, state, tries in airflow.query(
        "SELECT task_id, coalesce(rendered_map_index, ''), state, try_number FROM task_instance "
        "WHERE run_id = ? ORDER BY start_date",
        run,
    ):
        say(f"  {task:16} {shard:4} {state} (try {tries})")
    say("\nThe rows:\n")
    say(table_of(database))


if __name__ == "__main__":
    start(main)
