"""Postgres as others run it: behind a pooler, and with a role each for loader, dbt and readers."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from bank import Account
from pages import doc, row_cells
from parts import ROOT
from pgbouncer import pgbouncer
from rows import expected_rows
from runners import Destination, Pipe
from targets import Load, Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    import embedded
    from bank import Bank
    from runners import Meltano

pytestmark = pytest.mark.e2e

AT = "2026-01-31T10:17:05.000123Z"


@pytest.fixture
def target(postgres: embedded.Postgres) -> Iterator[Postgres]:
    with closing(Postgres(postgres)) as target:
        target.set_time_zone("America/New_York")
        yield target


@pytest.fixture
def folder_of_the_server(postgres: embedded.Postgres) -> Iterator[Path]:
    """A folder that the server's own user may write to; short, as the path of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        os.chown(name, Path(postgres.socket_folder).stat().st_uid, -1)
        yield Path(name)


def test_meltano_loads_through_a_pgbouncer_that_pools_transactions(
    postgres: embedded.Postgres,
    target: Postgres,
    meltano_project: Meltano,
    bank: Bank,
    folder_of_the_server: Path,
) -> None:
    accounts = [Account(f"a{number}") for number in range(12)]
    # Many batches, since psycopg prepares a statement that it has sent five times.
    load = Load(bank.settings(accounts), AT, batch_rows=1)
    direct = target.database
    with pgbouncer(postgres, folder_of_the_server, "transaction") as pooler:
        target.database = replace(direct, uri=f"{direct.uri.split('?')[0]}?{pooler}")
        assert Destination("postgres meltano", target, meltano_project).load(load) == 0
        with pytest.raises(psycopg.OperationalError, match=documented("unsupported")):
            psycopg.connect(target.database.uri, options="-c timezone=UTC")
        target.database = direct
    assert target.rows() == expected_rows(accounts, AT)


def documented(start: str) -> str:
    """The message of docs/troubleshooting.md that starts like this, as a pattern."""
    messages = [row[0].strip("`") for row in row_cells(doc("troubleshooting").section("Postgres"))]
    (message,) = [one for one in messages if one.startswith(start)]
    return re.escape(message)


def connect_as(role: str, database: embedded.Postgres) -> embedded.Postgres:
    return replace(database, uri=re.sub(r"//\w+:@", f"//{role}:@", database.uri))


def run_dbt(role: str, database: str, server: embedded.Postgres, folder: Path) -> str:
    done = subprocess.run(
        [ROOT / ".venvs" / "dbt" / "bin" / "dbt", "build"],
        cwd=ROOT / "transform",
        env=os.environ
        | {name: str(folder) for name in ("HOME", "DBT_TARGET_PATH", "DBT_LOG_PATH")}
        | {
            "DBT_POSTGRES_HOST": server.socket_folder,
            "DBT_POSTGRES_DBNAME": database,
            "DBT_POSTGRES_USER": role,
            # dbt v2 knows nothing of what dbt v1 calls deprecated.
            "DBT_WARN_ERROR_OPTIONS": '{"error": ["Deprecations"]}',
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_each_role_does_its_work_and_no_more(
    postgres: embedded.Postgres, target: Postgres, bank: Bank, tmp_path: Path
) -> None:
    # As on a managed server: who sets it up owns the database and is no superuser.
    postgres.psql(
        "CREATE ROLE admin LOGIN CREATEROLE", f"ALTER DATABASE {target.name} OWNER TO admin"
    )
    file = str(ROOT / "docs" / "postgres-roles.sql")
    admin = connect_as("admin", target.database)
    for _ in range(2):
        admin.psql(options=("-q", "-f", file))

    loader = connect_as("balance_loader", target.database)
    target.database = loader
    accounts = [Account("main"), Account("other")]
    # Without PGTZ: the time zone is the role's.
    pipe = Pipe(tmp_path)
    target.environment = dict  # type: ignore[method-assign]
    assert Destination("postgres", target, pipe).load(Load(bank.settings(accounts), AT)) == 0
    assert target.rows() == expected_rows(accounts, AT)

    run_dbt("balance_dbt", target.name, postgres, tmp_path)

    with psycopg.connect(connect_as("balance_reader", target.database).uri) as reader:
        for table in ("tap_balance.balance", "tap_balance_marts.balance_latest"):
            query = f"SELECT account FROM {table} ORDER BY 1"
            assert reader.execute(query.encode()).fetchall() == [("main",), ("other",)]
    for role, table in {
        "balance_reader": "tap_balance.balance",
        "balance_dbt": "tap_balance.balance",
        "balance_loader": "tap_balance_marts.balance_latest",
    }.items():
        forbidden = {
            f"DELETE FROM {table}": r"permission denied for (schema|table)",
            "CREATE SCHEMA another": documented("permission denied for database"),
        }
        for statement, message in forbidden.items():
            with (
                psycopg.connect(connect_as(role, target.database).uri) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege, match=message),
            ):
                connection.execute(statement.encode())
