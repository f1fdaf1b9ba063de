"""Run dbt commands in one process, which loads dbt once; needs nothing but dbt.

(dbt imports modules beside this one whose names begin with `dbt_`: it takes them for plugins.)

Its argument is the file descriptor of a socket that listens. Each connection sends a line of JSON,
{"arguments", "folder", "env"}, and gets one: the exit status, what dbt printed, and the status of
each node that it ran. It ends when stdin does.
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from dbt.cli.main import dbtRunner


def end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    threading.Thread(target=end_with_stdin, daemon=True).start()
    listener = socket.socket(fileno=int(sys.argv[1]))
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            if job := lines.readline():
                lines.write(json.dumps(run(**json.loads(job))) + "\n")


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
    main()
