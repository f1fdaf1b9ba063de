"""A real dbt that runs many commands in one process: to load it takes longer than most of them."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parts import SUPPORT, VENVS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE = 600.0
"""Seconds after which a command that does not end is killed, and the test fails."""


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
        self._process = subprocess.Popen(
            [VENVS / venv / "bin" / "python", SUPPORT / "dbt_commands.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, folder: Path, env: Mapping[str, str]) -> Done:
        """Run a command.

        Args:
            arguments: Its arguments.
            folder: Where to run it.
            env: All of its environment.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"arguments": arguments, "folder": str(folder), "env": dict(env)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        answer = self._process.stdout.readline()
        timer.cancel()
        assert answer, "dbt's process has ended"
        return Done(**json.loads(answer))

    def close(self) -> None:
        """End it."""
        self._process.communicate()
