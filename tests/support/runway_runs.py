"""Run by Airflow's own Python: runs `tap_balance_runway` without dbt for each line of stdin."""

from __future__ import annotations

import json
import os
import sys

sys.path.insert(0, os.environ["AIRFLOW__CORE__DAGS_FOLDER"])

from airflow.dag_processing.dagbag import DagBag
from tap_balance_airflow import settings


def main() -> None:
    """For each line with connections and the notifiers' source, print the state of `alerts`."""
    # Airflow logs to stdout.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    dag = DagBag(sys.path[0]).dags["tap_balance_runway"]
    for line in sys.stdin:
        connections, notifiers = json.loads(line)
        os.environ.update(connections)
        exec(notifiers, vars(settings))
        run = dag.test(mark_success_pattern="build")
        print(run.get_task_instance("alerts").state, file=output)


if __name__ == "__main__":
    main()
