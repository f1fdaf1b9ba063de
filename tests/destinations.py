"""Where snapshots are loaded to, as the tests see it: start a load, look at what is stored.

A `Target` is one target and what it writes to. A runner, `Pipe` or `Meltano`, starts the tap and
the target. Both together are a `Destination`. The processes are the real ones; only the tap's
clock is the test's (`tap_at.py`).
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import yaml

from tap_balance.sandbox import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import embedded
    from bank import Account
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
LOADERS = ROOT / ".meltano" / "loaders"
CONNECTOR_PYTHON = ROOT / ".venvs" / "fakesnow" / "bin" / "python"
MELTANO = ROOT / ".venvs" / "meltano" / "bin" / "meltano"
REAL_SNOWFLAKE = json.loads(os.environ.get("TEST_SNOWFLAKE", "null"))
"""How to connect to an account; set by check_snowflake.py, else there is the emulator."""

PATIENCE = 300.0 if REAL_SNOWFLAKE else 60.0
"""Seconds after which a load that does not end is killed, and the test fails."""

QUIET = {
    "HTTP_PROXY": "",
    "HTTPS_PROXY": "",
    "MELTANO_CLI_DISABLE_VERSION_CHECK": "1",
    "UV_COMPILE_BYTECODE": "1",
}


class Row(NamedTuple):
    """A stored snapshot; instants are UTC, amounts exact."""

    snapshot_id: str
    account: str
    product: str
    snapshot_at: dt.datetime
    observed_at: dt.datetime
    currency: str | None
    balance10000: int
    gift_balance10000: int
    total_balance10000: int
    balance: Decimal | None
    gift_balance: Decimal | None
    total_balance: Decimal | None

    def order(self) -> tuple[str, dt.datetime]:
        return self.snapshot_id, self.observed_at

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Row:
        """Read what a destination holds, whatever type it gave it; what is not there is null."""
        values: dict[str, Any] = {}
        for name in cls._fields:
            value = stored.get(name)
            if value is not None and name.endswith("_at"):
                values[name] = utc(value)
            elif value is not None and name.endswith("10000"):
                values[name] = int(value)
            elif value is not None and name.endswith("balance"):
                values[name] = Decimal(value)
            else:
                values[name] = value
        return cls(**values)


def utc(value: str | dt.datetime) -> dt.datetime:
    """Read an instant; one without a zone is in UTC."""
    moment = (
        dt.datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
    )
    return moment.replace(tzinfo=moment.tzinfo or dt.timezone.utc).astimezone(dt.timezone.utc)


def expected_rows(accounts: Iterable[Account], at: str) -> list[Row]:
    """What the table of the record in README.md says, for a run at this instant."""
    moment = utc(at)
    interval = moment.replace(minute=0, second=0, microsecond=0)
    rows = []
    for account in accounts:
        amounts = (
            account.balance10000,
            account.gift_balance10000,
            account.balance10000 + account.gift_balance10000,
        )
        rows.append(
            Row(
                f"{account.name}@{interval:%Y-%m-%dT%H:%M:%SZ}",
                account.name,
                account.product,
                interval,
                moment,
                "USD" if account.product == "otp" else account.currency,
                *amounts,
                *(Decimal(amount).scaleb(-4) for amount in amounts),
            )
        )
    return sorted(rows, key=Row.order)


def counted(rows: list[Row], expected: list[Row]) -> str:
    """Say how often each row is there; all are there, and no other."""
    assert sorted(set(rows), key=Row.order) == expected
    doubled = sum(rows.count(row) > 1 for row in expected)
    return f"twice: {doubled} of {len(expected)}" if doubled else "each once"


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
    def clock(self) -> dict[str, str]:
        """What `tap_at.py` reads."""
        return {"TEST_CLOCK": self.at.replace("Z", "+00:00")}


class Running:
    """A load that was started. Leaving its context kills what is still there of it."""

    def __init__(self, *processes: subprocess.Popen[bytes], log: Path) -> None:
        self._processes = processes
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        """Wait for its end.

        Returns:
            0 if all of its processes did well, else the status of the first that did not.
        """
        deadline = dt.datetime.now() + dt.timedelta(seconds=PATIENCE)  # noqa: DTZ005
        statuses = []
        for process in self._processes:
            left = (deadline - dt.datetime.now()).total_seconds()  # noqa: DTZ005
            statuses.append(process.wait(max(left, 0.1)))
        return next((status for status in statuses if status), 0)

    def kill(self) -> None:
        """End it at once, as an out-of-memory killer or a power cut would."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


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
        """Run one of README.md's queries, over what this target has stored."""

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

    def has_begun(self) -> bool:
        """Tell whether a load that runs has written something."""
        return bool(self.rows())


class Postgres(Target):
    """meltanolabs-target-postgres, into a database of its own."""

    plugin = "target-postgres"
    methods: tuple[str, ...] = ("append-only", "upsert", "overwrite")

    def __init__(self, server: embedded.Postgres, database: str) -> None:
        self._server = server
        self.name = database
        server.psql(f"CREATE DATABASE {database}")
        self.uri = server.uri.replace("/postgres?", f"/{database}?", 1)

    @property
    def command(self) -> Sequence[str | Path]:
        return [LOADERS / "target-postgres" / "venv" / "bin" / "target-postgres"]

    def config(self, load: Load) -> dict[str, Any]:
        config = {
            "sqlalchemy_url": self.uri.replace("://", "+psycopg://", 1),
            "default_target_schema": "tap_balance",
            "load_method": load.method or "upsert",
            "add_record_metadata": False,
            "activate_version": False,
        }
        return config | ({"batch_size_rows": load.batch_rows} if load.batch_rows else {})

    def environment(self) -> dict[str, str]:
        return {"PGOPTIONS": "-c timezone=UTC"}

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
        with psycopg.connect(self.uri, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(sql.encode()).fetchall()


class PipelinewisePostgres(Postgres):
    """pipelinewise-target-postgres: no Singer SDK in it, and no load methods."""

    plugin = "pipelinewise-target-postgres"
    methods = ()

    @property
    def command(self) -> Sequence[str | Path]:
        return [ROOT / ".venvs" / "pipelinewise-target-postgres" / "bin" / "target-postgres"]

    def config(self, load: Load) -> dict[str, Any]:
        config = {
            "host": self._server.socket_folder,
            "port": 5432,
            "user": "postgres",
            "password": "unused",
            "dbname": self.name,
            "default_target_schema": "tap_balance",
        }
        return config | ({"batch_size_rows": load.batch_rows} if load.batch_rows else {})

    def environment(self) -> dict[str, str]:
        return {}


class SnowflakeServer:
    """A Snowflake: how to connect to it, and a connection to look into it.

    Args:
        connect: Arguments of the Python connector.
    """

    def __init__(self, connect: dict[str, Any]) -> None:
        self.connect = connect
        self._worker = subprocess.Popen(
            [CONNECTOR_PYTHON, TESTS / "snowflake_sql.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(connect)

    @property
    def is_emulated(self) -> bool:
        return "host" in self.connect

    def query(self, sql: str) -> list[list[str | None]]:
        """Run one statement.

        Raises:
            RuntimeError: Snowflake refused it.
        """
        self._tell(sql)
        assert self._worker.stdout is not None
        answer = json.loads(self._worker.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        rows: list[list[str | None]] = answer["rows"]
        return rows

    def close(self) -> None:
        self._worker.communicate(timeout=60)

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
            [CONNECTOR_PYTHON, TESTS / "snowflake_emulator.py"],
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

    def __init__(self, server: SnowflakeServer, schema: str) -> None:
        self._server = server
        self._database = server.connect["database"]
        self.name = schema.upper()
        server.query(f"create schema {self._database}.{self.name}")

    @property
    def command(self) -> Sequence[str | Path]:
        binaries = LOADERS / "target-snowflake" / "venv" / "bin"
        if self._server.is_emulated:
            return [binaries / "python", TESTS / "target_snowflake_at.py"]
        return [binaries / "target-snowflake"]

    def config(self, load: Load) -> dict[str, Any]:
        known = ("account", "user", "password", "database", "warehouse", "role")
        config = {key: value for key, value in self._server.connect.items() if key in known} | {
            "default_target_schema": self.name,
            "load_method": load.method or "upsert",
            "add_record_metadata": False,
        }
        if "private_key_file" in self._server.connect:
            config["private_key_path"] = self._server.connect["private_key_file"]
            config["private_key_passphrase"] = self._server.connect.get("private_key_file_pwd")
        return config | ({"batch_size_rows": load.batch_rows} if load.batch_rows else {})

    def environment(self) -> dict[str, str]:
        if self._server.is_emulated:
            return {"SNOWFLAKE_SERVER": json.dumps(self._server.connect)}
        return {}

    def set_time_zone(self, zone: str) -> None:
        user = self._server.connect["user"]
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

    def types(self) -> dict[str, str]:
        names = {str: "string", int: "number"}
        return {
            name: names[type(value)]
            for name, value in self.stored()[0].items()
            if value is not None
        }


class Csv(Files):
    """meltanolabs-target-csv, which begins each of its files anew: one file for each run."""

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

    def has_begun(self) -> bool:
        # It writes a file's rows at the end of the run, all at once.
        return any(self._folder.glob("*.csv"))


class Runner(ABC):
    """What starts the tap and a target."""

    @abstractmethod
    def start(self, target: Target, load: Load) -> Running:
        """Start a load."""


@dataclass
class Pipe(Runner):
    """`tap-balance ... | target-...`.

    Attributes:
        folder: For configs, catalogs and logs.
    """

    folder: Path
    _catalog: dict[str, Any] = field(default_factory=dict)

    def start(self, target: Target, load: Load) -> Running:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        tap: list[str | Path] = [sys.executable, TESTS / "tap_at.py"]
        tap += ["--config", folder / "tap.json"]
        (folder / "tap.json").write_text(json.dumps(load.settings), encoding="utf-8")
        (folder / "target.json").write_text(json.dumps(target.config(load)), encoding="utf-8")
        if load.without:
            (folder / "catalog.json").write_text(json.dumps(self._without(load.without)))
            tap += ["--catalog", folder / "catalog.json"]
        environment = os.environ | QUIET | load.clock | target.environment()
        log = folder / "log"
        with log.open("wb") as file:
            first = subprocess.Popen(
                tap,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
            second = subprocess.Popen(
                [*target.command, "--config", folder / "target.json"],
                stdin=first.stdout,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        assert first.stdout is not None
        first.stdout.close()
        return Running(second, first, log=log)

    def _without(self, column: str) -> dict[str, Any]:
        if not self._catalog:
            # Discovery asks nobody; any settings that are right will do.
            settings = {"account": "a", "dev_key": "k", "dev_secret": "s"}
            path = self.folder / "discovery.json"
            path.write_text(json.dumps(settings))
            discovered = subprocess.run(
                [sys.executable, "-m", "tap_balance", "--discover", "--config", path],
                check=True,
                capture_output=True,
            )
            self._catalog = json.loads(discovered.stdout)
        catalog: dict[str, Any] = json.loads(json.dumps(self._catalog))
        for entry in catalog["streams"][0]["metadata"]:
            if entry["breadcrumb"] == ["properties", column]:
                entry["metadata"]["selected"] = False
        return catalog


class Meltano(Runner):
    """`meltano run tap-balance target-...`, with this repository's meltano.yml.

    Its project is a copy that shares the installed plugins and has a state of its own; there the
    tap's executable has the test's clock, and target-snowflake's finds the emulator.

    Args:
        project: Folder for the project.
        env: Variables for all its commands.
    """

    def __init__(self, project: Path, env: Mapping[str, str] | None = None) -> None:
        self._project = project
        self._environment = os.environ | QUIET | dict(env or {})
        described = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
        installed = ROOT / ".meltano"
        (project / ".meltano").mkdir()
        for kind in ("extractors", "loaders"):
            (project / ".meltano" / kind).symlink_to(installed / kind)
            for plugin in described["plugins"][kind]:
                name = plugin["name"]
                python = installed / kind / name / "venv" / "bin" / "python"
                script = {"tap-balance": "tap_at"}
                if not REAL_SNOWFLAKE:
                    script["target-snowflake"] = "target_snowflake_at"
                if name in script:
                    path = project / name
                    path.write_text(f'#!/bin/sh\nexec {python} {TESTS / script[name]}.py "$@"\n')
                    path.chmod(0o755)
                    plugin["executable"] = str(path)
        (project / "meltano.yml").write_text(yaml.safe_dump(described), encoding="utf-8")
        # Makes the tables of the state store; two first runs at once would both try.
        self.run("state", "list")

    def start(
        self,
        target: Target,
        load: Load,
    ) -> Running:
        settings = dict(load.settings)
        if "accounts" in settings:
            settings["accounts"] = json.dumps(settings["accounts"])
        environment = self._environment | load.clock
        environment |= {f"TAP_BALANCE_{key.upper()}": str(settings[key]) for key in settings}
        if load.without:
            environment["TAP_BALANCE__SELECT"] = json.dumps(["*.*", f"!balance.{load.without}"])
        prefix = target.plugin.replace("-", "_").upper()
        for key, value in target.config(load).items():
            environment[f"{prefix}_{key.upper()}"] = str(value)
        # PGOPTIONS is not among these: meltano.yml has to set it.
        if isinstance(target, Snowflake):
            environment |= target.environment()
        log = Path(tempfile.mkstemp(dir=self._project, prefix="log-")[1])
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    MELTANO,
                    "--environment=prod",
                    "run",
                    # A killed run blocks those of its state for minutes; another test's not.
                    f"--state-id-suffix={target.name}",
                    *(["--force"] if load.after_kill else []),
                    "tap-balance",
                    target.plugin,
                ],
                cwd=self._project,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        return Running(process, log=log)

    def run(self, *arguments: str) -> str:
        """Run another of its commands and return what it prints."""
        return subprocess.run(
            [MELTANO, *arguments],
            cwd=self._project,
            check=True,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=PATIENCE,
        ).stdout


@dataclass(frozen=True)
class Destination:
    """A target, and the way that it is started.

    Attributes:
        label: What the printed table calls it.
    """

    label: str
    target: Target
    runner: Runner

    def load(self, load: Load) -> int:
        """Run the pipeline to its end and return its status."""
        with self.runner.start(self.target, load) as running:
            status = running.wait()
            print(running.output)  # noqa: T201 - pytest shows it if the test fails
            assert SECRET not in running.output
            return status
