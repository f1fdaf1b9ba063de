"""Run by Airflow's own Python: calls functions of the DAGs' helper module, as stdin lists them."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.environ["AIRFLOW__CORE__DAGS_FOLDER"])

from tap_balance_airflow import meltano, pipeline, settings

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Read `[[function, [argument, ...]], ...]`, print a list of `{"result"}` or `{"error"}`."""
    own = {
        "cron": settings.cron,
        "environment": environment,
        "shapes": shapes,
        "errors": errors,
        "fail": fail,
    }
    functions = vars(pipeline) | own
    outcomes = [_outcome(functions[name], arguments) for name, arguments in json.load(sys.stdin)]
    # On a line of its own, behind what Airflow logs.
    print(json.dumps(outcomes, default=sorted))  # noqa: T201


def environment(connection: str) -> dict[str, str]:
    """Read the environment for Meltano from this connection instead."""
    os.environ["AIRFLOW_CONN_TAP_BALANCE"] = connection
    return pipeline.read_environment()


def shapes(began: float, minutes: int, shards: int) -> list[dict[str, Any]]:
    """Plan a run that began at this time."""
    start = datetime.fromtimestamp(began, tz=timezone.utc)
    context = {"dag_run": SimpleNamespace(start_date=start), "params": {"shards": shards}}
    return pipeline.plan(context, minutes)


def errors(*lines: str) -> tuple[list[str], list[str]]:
    """Let the hook read these lines, and return what it keeps of the tap and of the others."""
    hook = meltano.Meltano([])
    for line in lines:
        hook.info("%s", line)
    return hook.tap, hook.others


def fail(where: str, lines: list[str]) -> None:
    """Raise the exception of a task."""
    raise pipeline.failure(where, lines)


def _outcome(function: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    try:
        return {"result": function(*arguments)}
    except Exception as error:  # noqa: BLE001 - the caller states which one it expects
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
