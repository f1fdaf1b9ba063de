"""Run dbt commands in one process, which loads dbt once; needs nothing but dbt.

It reads a JSON list of commands from stdin, and writes what each did as JSON to the file that its
argument names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dbt.cli.main import dbtRunner


def main() -> None:
    done = [step(arguments) for arguments in json.load(sys.stdin)]
    Path(sys.argv[1]).write_text(json.dumps(done), encoding="utf-8")


def step(arguments: list[str]) -> dict[str, Any]:
    lines: list[str] = []

    def note(event: Any) -> None:  # noqa: ANN401
        if event.info.level in {"info", "warn", "error"}:
            lines.append(event.info.msg)

    done = dbtRunner(callbacks=[note]).invoke(arguments)
    return {
        "status": 0 if done.success else 2 if done.exception else 1,
        "log": "\n".join([*lines, str(done.exception or "")]),
        "nodes": {
            each.node.unique_id: str(each.status)
            for each in getattr(done.result, "results", [])
            if hasattr(each, "node")  # an operation's result has none
        },
    }


if __name__ == "__main__":
    main()
