"""The DAGs in an Airflow of a test's own: how they are run, and what they leave behind."""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from airflow_home import COMMAND, Airflow

from tap_balance.sandbox import SECRET, dev_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    import embedded

    from tap_balance.sandbox import Sandbox

PYTHON = COMMAND.parent / "python"
DATABASE_SECRET = "database-secret"


def account(name: str, key: str) -> dict[str, str]:
    return {"account": name, "dev_key": dev_key(key), "dev_secret": SECRET}


ODD = 'it\'s "odd"\n\u5317\u4eac; DROP'
ACCOUNTS = [account("example", "example"), account(ODD, "overdrawn"), account("empty", "empty")]


class Deployment:
    """Runs the DAGs with some accounts, into a database of its own."""

    def __init__(
        self, home: Path, sandbox: Sandbox, postgres: embedded.Postgres, database: str
    ) -> None:
        self.home = home
        self.sandbox_url = sandbox.url
        self._socket_folder = postgres.socket_folder
        self._database = database
        self.sqlalchemy_url = postgres.sqlalchemy_url
        self.uri = postgres.uri
        self.output = ""

    def airflow(self, settings: Mapping[str, Any], **changes: str) -> Airflow:
        """Changes: constants of settings.py."""
        folder = quote(self._socket_folder, safe="")
        return Airflow(
            self.home,
            {
                "TAP_BALANCE_BASE_URL": self.sandbox_url,
                "TAP_BALANCE_CURRENCY": "USD",
                "TARGET_POSTGRES_SQLALCHEMY_URL": f"postgresql+psycopg://postgres:{DATABASE_SECRET}"
                f"@/{self._database}?host={folder}",
                "DBT_POSTGRES_HOST": self._socket_folder,
                "DBT_POSTGRES_DBNAME": self._database,
                **settings,
            },
            {
                "conn_type": "postgres",
                "host": self._socket_folder,
                "login": "postgres",
                "password": DATABASE_SECRET,
                "schema": self._database,
            },
            {"MINUTES": "1440", "RETRIES": "0", "RETRY_SECONDS": "1", **changes},
        )

    def run(
        self,
        settings: Mapping[str, Any],
        *,
        dag: str = "tap_balance",
        env: Mapping[str, str] | None = None,
        **changes: str,
    ) -> tuple[int, str, dict[str, tuple[str, int]]]:
        """Returns the status, the state of the run, and the state and tries of each task."""
        airflow = self.airflow(settings, **changes)
        done = airflow.run("dags", "test", dag, env=env)
        self.output += done.stdout
        [(run, state)] = airflow.query("SELECT run_id, state FROM dag_run ORDER BY id DESC LIMIT 1")
        return done.returncode, state, tasks_of(airflow, run)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.uri) as connection:
            return connection.execute(sql.encode()).fetchall()


def tasks_of(airflow: Airflow, run: str) -> dict[str, tuple[str, int]]:
    """State and tries of each task of a run."""
    rows = airflow.query(
        "SELECT task_id || coalesce(' ' || rendered_map_index, ''), state, try_number "
        "FROM task_instance WHERE run_id = ?",
        run,
    )
    return {task: (state or "", tries) for task, state, tries in rows}


def secrets_in(content: bytes) -> list[str]:
    keys = ["example", "overdrawn", "empty", "largest", "expired"]
    tokens = [base64.b64encode(f"{dev_key(key)}:{SECRET}".encode()).decode() for key in keys]
    return [text for text in (SECRET, DATABASE_SECRET, *tokens) if text.encode() in content]


def secrets_below(folder: Path) -> list[str]:
    """Files with a secret in them: logs, and Airflow's metadata with its rendered templates.

    The repository's own meltano.yml does not count; it names the sandbox's accounts for the demo.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "meltano.yml"]
    assert files
    return [str(path) for path in files if secrets_in(path.read_bytes())]


def pids_with(variable: str, folder: Path | None = None) -> list[int]:
    """Processes with this in their environment, or that run in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (process / "environ").read_bytes().split(b"\0")
            if variable.encode() in environment or (process / "cwd").resolve() == folder:
                found.append(int(process.name))
    return found


def processes_with(variable: str, folder: Path | None = None) -> list[str]:
    """Their command lines."""
    found = []
    for pid in pids_with(variable, folder):
        with suppress(OSError):
            found.append(Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace"))
    return found
