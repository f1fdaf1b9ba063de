"""The two databases of the dbt project's tests, and dbt itself."""

from __future__ import annotations

import csv
import json
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Protocol

import history
import psycopg
from parts import ROOT
from shared_dbt import DbtProcess
from snowflake_target import emulated_snowflake

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    import embedded
    from history import Snapshot
    from shared_dbt import Done
    from snowflake_target import SnowflakeServer

TRANSFORM = ROOT / "transform"

Row = tuple[str | None, ...]
COLUMNS = """
    snapshot_id {text}, account {text}, product {text}, snapshot_at {time}, observed_at {time},
    currency {text}, balance10000 {whole}, gift_balance10000 {whole}, total_balance10000 {whole},
    balance numeric(38, 4), gift_balance numeric(38, 4), total_balance numeric(38, 4)
"""


class Warehouse(Protocol):
    """Where the snapshots are, and dbt's models of them."""

    dbt: DbtProcess
    env: dict[str, str]

    def load(self, rows: Iterable[Snapshot]) -> None:
        """Append, as a target would."""

    def query(self, sql: str) -> list[Row]:
        """The rows, each value as text."""


class InPostgres:
    def __init__(self, server: embedded.Postgres, dbt: DbtProcess, database: str) -> None:
        self._server = server
        self.uri = server.create_database(database).uri
        self.dbt = dbt
        self.env = {
            "DBT_TARGET": "postgres",
            "DBT_POSTGRES_HOST": server.socket_folder,
            "DBT_POSTGRES_DBNAME": database,
        }
        types = {"text": "text", "time": "timestamp", "whole": "bigint"}
        with psycopg.connect(self.uri) as connection:
            connection.execute("CREATE SCHEMA tap_balance")
            table = f"CREATE TABLE tap_balance.balance ({COLUMNS.format(**types)})"
            connection.execute(table.encode())

    def drop(self) -> None:
        self._server.psql(f"DROP DATABASE {self.env['DBT_POSTGRES_DBNAME']} WITH (FORCE)")

    def load(self, rows: Iterable[Snapshot]) -> None:
        history.load(self.uri, rows)

    def query(self, sql: str) -> list[Row]:
        with psycopg.connect(self.uri) as connection:
            return as_text(connection.execute(sql.encode()).fetchall())


class InSnowflake:
    def __init__(self, server: SnowflakeServer, dbt: DbtProcess, folder: Path) -> None:
        self.dbt = dbt
        self._server = server
        self._folder = folder
        (folder / "profiles.yml").write_text(
            json.dumps({
                "tap_balance": {
                    "target": "snowflake",
                    "outputs": {
                        "snowflake": {
                            "type": "snowflake",
                            "account": "fakesnow",
                            "user": "fake",
                            "password": "snow",  # pragma: allowlist secret
                            "host": "127.0.0.1",
                            "port": server.connect["port"],
                            "protocol": "http",
                            "database": "TRANSFORM",
                            "warehouse": "NONE",
                            "schema": "TAP_BALANCE_MARTS",
                            "threads": 1,
                        }
                    },
                }
            })
        )  # fmt: skip
        self.env = {"DBT_PROFILES_DIR": str(folder)}
        types = {"text": "varchar", "time": "timestamp_ntz", "whole": "numeric(38, 0)"}
        self.query("create database transform")
        self.query("use database transform")
        self.query("create schema tap_balance")
        self.query("use schema tap_balance")
        self.query(f"create table balance ({COLUMNS.format(**types)})")
        self.query("create stage loads")

    def load(self, rows: Iterable[Snapshot]) -> None:
        path = self._folder / "rows.csv"
        with path.open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_NONE, quotechar=None).writerows(
                row.row for row in rows
            )
        self.query(f"put 'file://{path}' @loads auto_compress=false overwrite=true")
        self.query("copy into balance from @loads/rows.csv file_format=(type=csv) force=true")

    def query(self, sql: str) -> list[Row]:
        return as_text(self._server.query(sql))


def as_text(rows: Iterable[Sequence[object]]) -> list[Row]:
    return [tuple(None if value is None else str(value) for value in row) for row in rows]


@contextmanager
def in_snowflake(folder: Path) -> Iterator[InSnowflake]:
    with emulated_snowflake(folder) as server, closing(DbtProcess()) as dbt:
        yield InSnowflake(server, dbt, folder)


def dbt(
    warehouse: Warehouse, folder: Path, *arguments: str, as_of: datetime, **variables: object
) -> Done:
    given = json.dumps({"as_of": as_of.isoformat(), **variables})
    return dbt_in(TRANSFORM, warehouse, folder, *arguments, "--vars", given)


def dbt_in(project: Path, warehouse: Warehouse, folder: Path, *arguments: str) -> Done:
    return warehouse.dbt.run(*arguments, folder=project, env=environment(warehouse, folder))


def environment(warehouse: Warehouse, folder: Path) -> dict[str, str]:
    """For dbt: where the database is, and where to write."""
    paths = {name: str(folder) for name in ("HOME", "DBT_TARGET_PATH", "DBT_LOG_PATH")}
    return {**os.environ, "DBT_PROFILES_DIR": str(TRANSFORM), **paths, **warehouse.env}
