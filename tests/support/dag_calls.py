"""Run by Airflow's own Python: calls functions of the DAGs' helper module, as stdin lists them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, os.environ["AIRFLOW__CORE__DAGS_FOLDER"])

from airflow.sdk import BaseNotifier
from tap_balance_airflow import load, pipeline, settings


def main() -> None:
    """For each line `[function, argument, ...]`, print its result, or the exception as text."""
    # Airflow logs to stdout.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    functions: list[Any] = [
        settings.cron,
        causes,
        connect,
        connect_destination,
        disconnect,
        execute,
        fail,
        notify_failure_of,
        plan,
        publish,
    ]
    own = {function.__name__: function for function in functions}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            result = (vars(pipeline) | own)[name](*arguments)
        except Exception as error:  # noqa: BLE001 - the caller states which one it expects
            result = f"{type(error).__name__}: {error}"
        print(json.dumps(result), file=output)


def connect(extra: object) -> str:
    """Use a connection with this extra."""
    connection = {"conn_type": "generic", "extra": extra}
    os.environ["AIRFLOW_CONN_TAP_BALANCE"] = json.dumps(connection)
    return "connected" if pipeline.read_environment() else ""


def connect_destination(connection: dict[str, str]) -> None:
    """Use this connection to the destination."""
    os.environ["AIRFLOW_CONN_TAP_BALANCE_DESTINATION"] = json.dumps(connection)


def disconnect() -> None:
    """Read the connection where it is not found."""
    del os.environ["AIRFLOW_CONN_TAP_BALANCE"]
    pipeline.read_environment()


def notify_failure_of(reason: str | None, errors: list[str | None]) -> list[str]:
    """Report a failed task through notifiers that fail with these errors, or send."""
    sent: list[str] = []

    class Notifier(BaseNotifier):  # type: ignore[misc]
        def __init__(self, error: str | None) -> None:
            super().__init__()
            self.error = error

        def notify(self, context: Any) -> None:  # noqa: ANN401
            if self.error:
                raise OSError(self.error)
            sent.append(context["message"])

    settings.notifiers = lambda: [Notifier(error) for error in errors]
    context = {"ti": SimpleNamespace(dag_id="tap_balance", task_id="load")}
    pipeline.notify_failure(context | ({"exception": OSError(reason)} if reason else {}))
    return sent


def plan(began: float, minutes: int, shards: int) -> list[dict[str, Any]]:
    """Plan a run that began at this time."""
    settings.MINUTES = minutes
    start = datetime.fromtimestamp(began, tz=timezone.utc)
    return pipeline.plan(dag_run=SimpleNamespace(start_date=start), params={"shards": shards})


def publish() -> None:
    """Call what the task `publish` does."""
    load.publish.function()


def causes(*lines: str) -> None:
    """Run a Meltano that prints these lines and fails."""
    with tempfile.TemporaryDirectory() as folder:
        meltano = Path(folder, "meltano")
        printed = "\n".join(lines)
        meltano.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\nexit 1\n")
        meltano.chmod(0o755)
        settings.MELTANO = str(meltano)
        pipeline.Meltano(task_id="build", run="dbt-postgres:build", shape={}).execute({})


def execute(shape: dict[str, str]) -> None:
    """Call what the task `load` does."""
    pipeline.Meltano(task_id="load", run="tap-balance target-postgres", shape=shape).execute({})


def fail(where: str, lines: list[str]) -> None:
    """Raise the exception of a task."""
    raise pipeline.failure(where, lines)


if __name__ == "__main__":
    main()
