"""target-snowflake, and the Snowflake that it loads into."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from parts import CONNECTOR_PYTHON, LOADERS, QUIET, SUPPORT
from targets import Target, unique_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from targets import Load


class SnowflakeServer:
    """A Snowflake: how to connect to it, and a connection to look into it.

    Args:
        connect: Arguments of the Python connector.
    """

    def __init__(self, connect: dict[str, Any]) -> None:
        self.connect = connect
        self._worker = subprocess.Popen(
            [CONNECTOR_PYTHON, SUPPORT / "snowflake_sql.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(connect)
        self._answer()

    @property
    def is_emulated(self) -> bool:
        return "host" in self.connect

    def query(self, sql: str) -> list[list[str | None]]:
        """Run one statement.

        Raises:
            RuntimeError: Snowflake refused it.
        """
        self._tell(sql)
        return self._answer()

    def close(self) -> None:
        self._worker.communicate(timeout=60)

    def _answer(self) -> list[list[str | None]]:
        assert self._worker.stdout is not None
        answer = json.loads(self._worker.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        rows: list[list[str | None]] = answer["rows"]
        return rows

    def _tell(self, message: object) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.write(json.dumps(message) + "\n")
        self._worker.stdin.flush()


@contextmanager
def emulated_snowflake(folder: Path) -> Iterator[SnowflakeServer]:
    """Start the emulator, with a database; its log goes to the folder."""
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [CONNECTOR_PYTHON, SUPPORT / "snowflake_emulator.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | QUIET,
        ) as emulator,
    ):
        assert emulator.stdout is not None
        connect = json.loads(emulator.stdout.readline())
        # It creates the database for whoever names it.
        with closing(SnowflakeServer(connect | {"database": "BALANCE"})) as server:
            yield server
        emulator.communicate(timeout=60)


class Snowflake(Target):
    """meltanolabs-target-snowflake, into a schema of its own."""

    plugin = "target-snowflake"
    methods = ("append-only", "upsert", "overwrite")

    def __init__(self, server: SnowflakeServer) -> None:
        self._server = server
        self._database = server.connect["database"]
        self.name = unique_name().upper()
        server.query(f"create schema {self._database}.{self.name}")

    @property
    def command(self) -> Sequence[str | Path]:
        binaries = LOADERS / "target-snowflake" / "venv" / "bin"
        if self._server.is_emulated:
            return [binaries / "python", SUPPORT / "target_snowflake_at.py"]
        return [binaries / "target-snowflake"]

    def config(self, load: Load) -> dict[str, Any]:
        known = ("account", "user", "password", "database", "warehouse", "role")
        config = {key: value for key, value in self._server.connect.items() if key in known}
        config |= load.batches | {
            "default_target_schema": self.name,
            "load_method": load.method or "upsert",
            "add_record_metadata": False,
        }
        for argument, setting in (
            ("private_key_file", "private_key_path"),
            ("private_key_file_pwd", "private_key_passphrase"),
        ):
            if argument in self._server.connect:
                config[setting] = self._server.connect[argument]
        return config

    def environment(self) -> dict[str, str]:
        if self._server.is_emulated:
            return {"SNOWFLAKE_SERVER": json.dumps(self._server.connect)}
        return {}

    def set_time_zone(self, zone: str) -> None:
        ((user,),) = self._server.query("select current_user()")
        self._server.query(f"alter user \"{user}\" set timezone = '{zone}'")

    def stored(self) -> list[dict[str, Any]]:
        types = self.types()
        if not types:
            return []
        names = ", ".join(types)
        rows = self._server.query(f"select {names} from {self._database}.{self.name}.BALANCE")
        return [dict(zip(types, row, strict=True)) for row in rows]

    def query(self, sql: str) -> list[list[Any]]:
        return self._server.query(
            sql.strip()
            .rstrip(";")
            .replace("tap_balance.balance", f"{self._database}.{self.name}.BALANCE")
        )

    def types(self) -> dict[str, str]:
        columns = self._server.query(
            "select column_name, data_type, numeric_precision, numeric_scale "
            f"from {self._database}.information_schema.columns "
            f"where table_schema = '{self.name}' and table_name = 'BALANCE'"
        )
        return {
            str(name).lower(): str(kind) + (f"({precision},{scale})" if precision else "")
            for name, kind, precision, scale in columns
        }

    def close(self) -> None:
        self._server.query(f"drop schema {self._database}.{self.name}")
