"""Run by Airflow's own Python: calls functions of the DAG's file, as stdin lists them."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

DAG_FILE = Path(__file__).resolve().parents[2] / "orchestrate" / "dags" / "tap_balance.py"


def main() -> None:
    """Read `[[function, [argument, ...]], ...]`, print a list of `{"result"}` or `{"error"}`."""
    spec = importlib.util.spec_from_file_location("dag_file", DAG_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    functions = vars(module) | {"settings_from": lambda text: _settings_from(module, text)}
    outcomes = [_outcome(functions[name], arguments) for name, arguments in json.load(sys.stdin)]
    # On a line of its own, behind what Airflow logs.
    print(json.dumps(outcomes, default=sorted))  # noqa: T201


def _settings_from(module: ModuleType, connection: str) -> Any:  # noqa: ANN401
    """Read the settings from this connection instead."""
    os.environ["AIRFLOW_CONN_TAP_BALANCE"] = connection
    return module.settings()


def _outcome(function: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    try:
        return {"result": function(*arguments)}
    except Exception as error:  # noqa: BLE001 - the caller states which one it expects
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
