"""A real dbt that runs many commands in one process: to load it takes longer than most of them.

Run as a script, it is the command `dbt` of such a process: `shared_dbt.py PORT ARGUMENT ...`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parts import SUPPORT, VENVS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = 600.0
"""Seconds after which the test fails for a command that has not ended."""


@dataclass(frozen=True)
class Done:
    """What a command did.

    Attributes:
        status: dbt's exit status.
        log: What it printed.
        nodes: The status of each node that it ran.
    """

    status: int
    log: str
    nodes: dict[str, str]

    def nodes_other_than(self, *statuses: str) -> dict[str, str]:
        """The nodes that have none of these statuses."""
        return {node: status for node, status in self.nodes.items() if status not in statuses}


class DbtProcess:
    """One version of dbt.

    Args:
        venv: Name of its venv.
    """

    def __init__(self, venv: str = "dbt") -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port: int = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [
                    VENVS / venv / "bin" / "python",
                    SUPPORT / "serve_dbt.py",
                    str(listener.fileno()),
                ],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
            )

    def run(self, *arguments: str, folder: Path, env: Mapping[str, str]) -> Done:
        """Run a command.

        Args:
            arguments: Its arguments.
            folder: Where to run it.
            env: All of its environment.
        """
        return run(self._port, arguments, folder, env)

    def command(self, folder: Path) -> Path:
        """Write the command `dbt` of this process into a folder."""
        path = folder / "dbt"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {self._port} "$@"\n')
        path.chmod(0o755)
        return path

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def run(port: int, arguments: Sequence[str], folder: Path, env: Mapping[str, str]) -> Done:
    job = {"arguments": arguments, "folder": str(folder), "env": dict(env)}
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as connection,
        connection.makefile("rw", encoding="utf-8") as lines,
    ):
        lines.write(json.dumps(job) + "\n")
        lines.flush()
        answer = lines.readline()
    assert answer, "dbt's process has ended"
    return Done(**json.loads(answer))


if __name__ == "__main__":
    done = run(int(sys.argv[1]), sys.argv[2:], Path.cwd(), os.environ)
    sys.stdout.write(done.log)
    sys.exit(done.status)
