"""A real Airflow on this machine with the repository's DAG, for the demo and the tests."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / ".venvs" / "airflow" / "bin" / "airflow"
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}
GRACE = 15.0
"""Seconds for a component to end by itself."""


class Airflow:
    """An Airflow with a home of its own, its metadata in SQLite.

    Args:
        home: Its folder.
        settings: The environment for Meltano, as the connection `tap_balance` holds it.
        destination: The connection `tap_balance_destination`.
        constants: The DAG's constants, without their prefix `TAP_BALANCE_DAG_`.
    """

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, Any],
        destination: Mapping[str, Any],
        constants: Mapping[str, str],
    ) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        extra = {"conn_type": "generic", "extra": settings}
        self.environment = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_TAP_BALANCE": json.dumps(extra),
            "AIRFLOW_CONN_TAP_BALANCE_DESTINATION": json.dumps(destination),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "orchestrate" / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "TAP_BALANCE_DAG_MELTANO": str(ROOT / ".venvs" / "meltano" / "bin" / "meltano"),
            "TAP_BALANCE_DAG_PROJECT": str(ROOT),
        }
        self.environment |= {f"TAP_BALANCE_DAG_{name}": text for name, text in constants.items()}

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Airflow's commands to its end; both streams are in its stdout."""
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=self.home,
            env=self.environment | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def query(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        """Read from Airflow's metadata."""
        uri = f"file:{self.home / 'airflow.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run API server, scheduler and DAG processor; end them with all that they started.

        Each writes a log into the home.
        """
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for name, arguments in COMPONENTS.items():
                with (self.home / f"{name}.log").open("wb") as log:
                    processes.append(
                        subprocess.Popen(
                            [COMMAND, *arguments],
                            cwd=self.home,
                            env=self.environment,
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            # Ctrl-C is for the caller, who ends them in order.
                            start_new_session=True,
                        )
                    )
            yield
        finally:
            _end(processes)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask all process groups below these processes to end, then make them."""
    groups = _groups_below({process.pid for process in processes})
    _signal_groups(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    _signal_groups(groups, signal.SIGKILL)
    for process in processes:
        process.wait()


def _groups_below(roots: set[int]) -> set[int]:
    """Find the process groups of these processes and their descendants (a task is its own)."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,pgid="],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = set(roots)
    while more := {pid for pid, parent, _ in rows if parent in found} - found:
        found |= more
    return {group for pid, _, group in rows if pid in found} - {os.getpgrp()}


def _signal_groups(groups: set[int], signum: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signum)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
