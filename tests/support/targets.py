"""The targets: what each is asked to do, and what it has stored."""

from __future__ import annotations

import csv
import json
import subprocess
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from parts import CONNECTOR_PYTHON, LOADERS, ROOT
from rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import embedded


@dataclass(frozen=True)
class Load:
    """One run of the pipeline.

    Attributes:
        settings: The tap's settings.
        at: The tap's clock, ISO 8601.
        method: The target's `load_method`; None leaves it as it is configured.
        without: A column that the catalog leaves out, as an earlier version of the schema would.
        batch_rows: Rows that the target writes at once.
        after_kill: The run before was killed. Meltano takes it to be running for five minutes.
    """

    settings: dict[str, Any]
    at: str
    method: str | None = None
    without: str | None = None
    batch_rows: int | None = None
    after_kill: bool = False

    @property
    def batches(self) -> dict[str, Any]:
        """The setting of the targets for `batch_rows`."""
        return {"batch_size_rows": self.batch_rows} if self.batch_rows else {}

    @property
    def clock(self) -> dict[str, str]:
        """What `tap_at.py` reads."""
        return {"TEST_CLOCK": self.at.replace("Z", "+00:00")}


def unique_name() -> str:
    """Name a database or a schema that no other test uses."""
    return f"t_{uuid.uuid4().hex}"


class Target(ABC):
    """One target, and what it writes to."""

    plugin: str
    """Name in meltano.yml."""
    name: str = "files"
    """Name of the database, or of the schema, that it writes to."""
    methods: tuple[str, ...] = ()
    """Load methods that it has."""

    @property
    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command that starts the target."""

    @abstractmethod
    def config(self, load: Load) -> dict[str, Any]:
        """The target's own settings."""

    @abstractmethod
    def stored(self) -> Iterable[Mapping[str, Any]]:
        """What is stored, a mapping of column to value for each row."""

    @abstractmethod
    def types(self) -> dict[str, str]:
        """The type of each column, as the destination names it."""

    @abstractmethod
    def query(self, sql: str) -> list[list[Any]]:
        """Run one of the queries in docs/, over what this target has stored."""

    def environment(self) -> dict[str, str]:
        """What a plain pipe has to set for this target."""
        return {}

    @abstractmethod
    def set_time_zone(self, zone: str) -> None:
        """Set the time zone that the destination gives a session."""

    @abstractmethod
    def close(self) -> None:
        """Drop what is stored."""

    def rows(self) -> list[Row]:
        return sorted((Row.of(row) for row in self.stored()), key=Row.order)

    def has_written(self, sent: int) -> bool:  # noqa: ARG002 - it may keep some back
        """Tell whether a load that runs has written something of the rows that were sent to it."""
        return bool(self.rows())


class Postgres(Target):
    """meltanolabs-target-postgres, into a database of its own."""

    plugin = "target-postgres"
    methods: tuple[str, ...] = ("append-only", "upsert", "overwrite")

    def __init__(self, server: embedded.Postgres) -> None:
        self._server = server
        self.name = unique_name()
        self.database = server.create_database(self.name)

    @property
    def command(self) -> Sequence[str | Path]:
        return [LOADERS / "target-postgres" / "venv" / "bin" / "target-postgres"]

    def config(self, load: Load) -> dict[str, Any]:
        return load.batches | {
            "sqlalchemy_url": self.database.sqlalchemy_url,
            "default_target_schema": "tap_balance",
            "load_method": load.method or "upsert",
            "add_record_metadata": False,
            "activate_version": False,
        }

    def environment(self) -> dict[str, str]:
        return {"PGTZ": "UTC"}

    def set_time_zone(self, zone: str) -> None:
        self._server.psql(f"ALTER DATABASE {self.name} SET timezone TO '{zone}'")
        assert self._query("SHOW timezone")[0]["TimeZone"] == zone

    def stored(self) -> list[dict[str, Any]]:
        if not self._query("SELECT 1 FROM information_schema.tables WHERE table_name = 'balance'"):
            return []
        return self._query("SELECT * FROM tap_balance.balance")

    def query(self, sql: str) -> list[list[Any]]:
        return [list(row.values()) for row in self._query(sql)]

    def types(self) -> dict[str, str]:
        columns = self._query("SELECT * FROM information_schema.columns WHERE table_name='balance'")
        return {
            column["column_name"]: column["data_type"].replace(" without time zone", "")
            + (
                f"({column['numeric_precision']},{column['numeric_scale']})"
                if column["data_type"] == "numeric" and column["numeric_precision"]
                else ""
            )
            for column in columns
        }

    def close(self) -> None:
        self._server.psql(f"DROP DATABASE {self.name} WITH (FORCE)")

    def _query(self, sql: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.database.uri, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(sql.encode()).fetchall()


class PipelinewisePostgres(Postgres):
    """pipelinewise-target-postgres: no Singer SDK in it, and no load methods."""

    plugin = "pipelinewise-target-postgres"
    methods = ()

    @property
    def command(self) -> Sequence[str | Path]:
        return [ROOT / ".venvs" / "pipelinewise-target-postgres" / "bin" / "target-postgres"]

    def config(self, load: Load) -> dict[str, Any]:
        return load.batches | {
            "host": self._server.socket_folder,
            "port": 5432,
            "user": "postgres",
            "password": "unused",
            "dbname": self.name,
            "default_target_schema": "tap_balance",
        }

    def environment(self) -> dict[str, str]:
        return {}


class Files(Target):
    """A target that writes files into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def query(self, sql: str) -> list[list[Any]]:
        program = "import duckdb, json, sys; rows = duckdb.sql(sys.argv[1]).fetchall()"
        program += "; print(json.dumps(rows, default=str))"
        answer = subprocess.run(
            [CONNECTOR_PYTHON, "-c", program, sql.replace("output/", f"{self._folder}/")],
            check=True,
            capture_output=True,
            text=True,
        )
        rows: list[list[Any]] = json.loads(answer.stdout)
        return rows

    def set_time_zone(self, zone: str) -> None:
        """Nothing here has sessions."""

    def close(self) -> None:
        """The folder is pytest's."""


class Jsonl(Files):
    """target-jsonl: a line for each record, at the end of one file."""

    plugin = "target-jsonl"
    methods = ("append-only",)

    @property
    def command(self) -> Sequence[str | Path]:
        return [LOADERS / "target-jsonl" / "venv" / "bin" / "target-jsonl"]

    def config(self, load: Load) -> dict[str, Any]:
        del load
        return {"destination_path": str(self._folder), "do_timestamp_file": False}

    def stored(self) -> list[dict[str, Any]]:
        text = "".join(path.read_text("utf-8") for path in self._folder.glob("*.jsonl"))
        return [json.loads(line) for line in text.splitlines()]

    def has_written(self, sent: int) -> bool:
        # It writes each row as it comes, so that how many are there twice depends on the moment.
        return sum(path.read_bytes().count(b"\n") for path in self._folder.glob("*.jsonl")) == sent

    def types(self) -> dict[str, str]:
        names = {str: "string", int: "number"}
        return {
            name: names[type(value)]
            for name, value in self.stored()[0].items()
            if value is not None
        }


class Csv(Files):
    """meltanolabs-target-csv, which overwrites each of its files: one file for each run."""

    plugin = "target-csv"
    methods = ("append-only", "overwrite")

    @property
    def command(self) -> Sequence[str | Path]:
        return [ROOT / ".venvs" / "target-csv" / "bin" / "target-csv"]

    def config(self, load: Load) -> dict[str, Any]:
        if load.method == "overwrite":
            return {"output_path": str(self._folder)}
        return {
            "output_path": str(self._folder),
            "file_naming_scheme": "{stream_name}-{timestamp}.csv",
            "timestamp_format": "%Y%m%dT%H%M%S.%f",
        }

    def stored(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for path in sorted(self._folder.glob("*.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                rows += [
                    {name: value or None for name, value in row.items()}
                    for row in csv.DictReader(file)
                ]
        return rows

    def types(self) -> dict[str, str]:
        return dict.fromkeys(self.stored()[0], "text")

    def has_written(self, sent: int) -> bool:  # noqa: ARG002
        # It writes a file's rows at the end of the run, all at once.
        return any(self._folder.glob("*.csv"))
