"""`make demo-airflow`: a real Airflow runs the DAG by its schedule, and the rows are shown.

It starts the sandbox, a Postgres out of a wheel, and Airflow's own scheduler, DAG processor and API
server on SQLite. The DAGs are the folder that users copy; in its settings.py the demo sets two
shards and a run every minute. With `EXECUTOR=celery`, two workers that share nothing do the work, a
Redis is the broker, and the metadata are in Postgres.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from typing import TYPE_CHECKING

from airflow_celery import Cluster, missing
from airflow_home import COMMAND, Airflow
from steps import StepError, run_command, say, start, step

from demo import OUTPUT, servers, table
from tap_balance.sandbox import Sandbox, settings_of

if TYPE_CHECKING:
    import embedded

CONSTANTS = {"MINUTES": "1", "SHARDS": "2", "RETRY_SECONDS": "2"}
PATIENCE = 150.0
"""Seconds until a run has to be finished."""

HOME = OUTPUT / "airflow"
STEPS = {
    "tap_balance": "A scheduled run of tap_balance: the shards at once, then the check",
    "tap_balance_runway": "The run of tap_balance_runway that it starts: the models, the alerts",
}
ENDED = (
    # A task that has failed for good is enough; those after it would go on for minutes.
    "SELECT run_id, state FROM dag_run WHERE dag_id = ? AND run_type <> 'manual' "
    "AND state IN ('success', 'failed') UNION ALL "
    "SELECT run_id, state FROM task_instance WHERE dag_id = ? AND state = 'failed' "
    "ORDER BY run_id LIMIT 1"
)

ROWS = """
SELECT snapshot_id, product, currency, balance10000, balance, gift_balance, total_balance
FROM tap_balance.balance ORDER BY snapshot_at, account
"""


def main() -> None:
    """Run the demo."""
    celery = sys.argv[1:] == ["celery"]
    if celery and (reason := missing()):
        sys.exit(f"EXECUTOR=celery {reason}")
    started = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    with servers(Sandbox()) as (base_url, database), contextlib.ExitStack() as stack:
        airflow = make_cluster(database) if celery else make_airflow(base_url, database)
        if not celery:
            with step("Making Airflow's database"):
                run_command(
                    [COMMAND, "db", "migrate"],
                    HOME / "db-migrate.log",
                    env=airflow.environment,
                    cwd=HOME,
                )
        with step("Starting Airflow; its DAG processor picks the DAGs up"):
            try:
                stack.enter_context(airflow.running())
            except TimeoutError as error:
                raise not_ready(component="api-server") from error
            wait_for(airflow, "dag-processor", "SELECT 1 WHERE (SELECT count(*) FROM dag) >= 2")
        runs = []
        for dag, title in STEPS.items():
            with step(title):
                [(run, state)] = wait_for(airflow, "scheduler", ENDED, dag, dag)
            if state != "success":
                raise task_failed(airflow, run)
            runs.append(run)
        show(airflow, database, runs)
        with step("Ending Airflow"):
            stack.close()
    say(f"\nDone in {time.monotonic() - started:.0f} s; everything that was started is stopped.")
    say(
        f"Airflow's logs are in {HOME.relative_to(OUTPUT.parent)}. For your own Airflow, copy\n"
        "orchestrate/dags/tap_balance_airflow; docs/airflow.md lists what it needs."
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
        constants=CONSTANTS,
    )


def make_cluster(database: embedded.Postgres) -> Cluster:
    """Configure an Airflow with two Celery workers, each with a sandbox of its own."""
    accounts = settings_of("")["accounts"]
    return Cluster(HOME, {"TAP_BALANCE_CURRENCY": "USD"}, accounts, CONSTANTS, database)


def wait_for(airflow: Airflow, component: str, sql: str, *parameters: str) -> list[tuple[str, ...]]:
    """Wait until a component of Airflow has written such a row into its metadata."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if rows := airflow.query(sql, *parameters):
            return rows
        time.sleep(0.5)
    raise not_ready(component)


def not_ready(component: str) -> StepError:
    """A component of Airflow that did not do its part in time."""
    log = HOME / f"{component}.log"
    what = f"airflow {component} has not done its part after {PATIENCE:.0f} s"
    return StepError(what, log.read_text(), log)


def task_failed(airflow: Airflow, run: str) -> StepError:
    """The first task of a run that failed, with what it logged last."""
    task, attempt = airflow.query(
        "SELECT task_id, try_number FROM task_instance WHERE run_id = ? AND state = 'failed' "
        "ORDER BY end_date LIMIT 1",
        run,
    )[0]
    log = next(HOME.rglob(f"run_id={run}/task_id={task}/**/attempt={attempt}.log"))
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    return StepError(
        f"The task {task} of {run} failed in attempt {attempt}", "\n".join(events), log
    )


def show(airflow: Airflow, database: embedded.Postgres, runs: list[str]) -> None:
    """Print what the tasks of these runs did, and the table."""
    say("\nThe tasks:\n")
    for dag, task, shard, state, tries, host in airflow.query(
        "SELECT dag_id, task_id, coalesce(rendered_map_index, ''), state, try_number, hostname "
        "FROM task_instance WHERE run_id IN (?, ?) ORDER BY start_date",
        *runs,
    ):
        say(f"  {dag:18} {task:8} {shard:4} {state} (try {tries}, {host})")
    say("\nThe rows:\n")
    say(table(database, ROWS))


if __name__ == "__main__":
    start(main)
