"""The Snowflake emulator as a server, run by the Python of its own venv: `snowflake_for_dbt.py`.

It prints its port, and ends when its stdin does.
"""

from __future__ import annotations

import re
import socket
import sys
from typing import Any

import fakesnow
from fakesnow.cursor import FakeSnowflakeCursor

execute = FakeSnowflakeCursor.execute


def _execute(self: FakeSnowflakeCursor, command: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    # dbt qualifies the names of temporary tables, which DuckDB below the emulator refuses. It also
    # drops them itself or replaces them, so that a table does as well.
    command = re.sub(r"(?i)^(\s*(?:/\*.*?\*/\s*)?create or replace) temporary ", r"\1 ", command)
    return execute(self, command, *args, **kwargs)


FakeSnowflakeCursor.execute = _execute

if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with fakesnow.server(port=port):
        print(port, flush=True)
        sys.stdin.read()
