"""Run dbt commands in one process, which loads dbt once; needs nothing but dbt.

A line of stdin is JSON: {"arguments", "folder", "env"}. The answer is a line of JSON: the exit
status, what dbt printed, and the status of each node that it ran.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from dbt.cli.main import dbtRunner


def run(arguments: list[str], folder: str, env: dict[str, str]) -> dict[str, Any]:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(printed):
        done = dbtRunner().invoke(arguments)
    return {
        "status": 0 if done.success else 2 if done.exception else 1,
        "log": f"{printed.getvalue()}{done.exception or ''}",
        "nodes": {
            each.node.unique_id: str(each.status)
            for each in getattr(done.result, "results", [])
            if hasattr(each, "node")  # an operation's result has none
        },
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)  # noqa: T201 - its answer
