"""The Snowflake emulator as a server with a console, run by the Python of its own venv.

It prints its port, then answers each line of stdin, which is an SQL statement as JSON, with a line
of its rows as JSON. It ends when its stdin does.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from typing import Any

import fakesnow
import snowflake.connector
from fakesnow.cursor import FakeSnowflakeCursor

execute = FakeSnowflakeCursor.execute


def _execute(self: Any, command: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    # dbt qualifies the names of temporary tables, which DuckDB below the emulator refuses. It also
    # drops them itself or replaces them, so that a table does as well.
    command = re.sub(r"(?i)^(\s*(?:/\*.*?\*/\s*)?create or replace) temporary ", r"\1 ", command)
    return execute(self, command, *args, **kwargs)


def main() -> None:
    """Serve, and answer."""
    FakeSnowflakeCursor.execute = _execute
    answers, sys.stdout = sys.stdout, sys.stderr  # which the server logs to
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with fakesnow.server(port=port) as settings:
        print(port, file=answers, flush=True)
        with snowflake.connector.connect(**{**settings, "network_timeout": 60}) as connection:
            for line in sys.stdin:
                rows = connection.cursor().execute(json.loads(line)).fetchall()
                print(json.dumps(rows, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
