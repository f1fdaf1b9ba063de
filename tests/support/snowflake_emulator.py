"""A Snowflake to load into: the fakesnow server, and what target-snowflake and dbt need beyond it.

Run in `.venvs/fakesnow`. Prints how to connect as one line of JSON, then serves until stdin ends.

fakesnow knows no user stage (`@~`), through which the target loads, and has one time zone. Both
are added here, in SQL that the emulator understands; the statements come from the unchanged target.
Snowflake runs one MERGE into a table after the other; DuckDB under the emulator would fail the
second, so a lock stands for Snowflake's.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from fakesnow import server
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.transforms import stage
from snowflake.connector.errors import ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXECUTE = FakeSnowflakeCursor.execute
USER_STAGE = "_FS._FS._USER"
WRITING = threading.RLock()
zone = {"of sessions": "UTC"}

PUT = re.compile(r"put\s+('[^']+')\s+'@~/([^']+)'", re.IGNORECASE)
MERGE = re.compile(
    r"merge into (\S+) d using \((select .*) from '@~/([^']+)'\s*\(file_format => [^)]*\) "
    r"(QUALIFY .*?)\) s (on .*)",
    re.DOTALL,
)
COPY = re.compile(
    r"copy into (\S+) (\(.*?\)) from \(select (.*) from '@~/([^']+)'\)file_format", re.DOTALL
)
NOTHING_TO_DO = re.compile(
    r"remove\s+'@~/|drop file format|create or replace file format", re.IGNORECASE
)
TEMPORARY = re.compile(
    r"^(\s*(?:/\*.*?\*/\s*)?create or replace) temporary ", re.IGNORECASE | re.DOTALL
)
PRIMARY_KEY = re.compile(r",\s*PRIMARY KEY \(\w+\)")
TIME_ZONE = re.compile(r"""alter user "\w+" set timezone = '([A-Za-z/_]+)'""", re.IGNORECASE)


def execute(cursor: Any, command: str, params: Any = None, *rest: Any, **options: Any) -> Any:
    """Run one statement, as the emulator's own `execute` does.

    Raises:
        ProgrammingError: The emulator cannot run it. Any other error would be an answer with
            HTTP 500, which the connector repeats for ever.
    """
    try:
        return _execute(cursor, command.strip(), params, *rest, **options)
    except (AssertionError, duckdb.Error) as error:
        raise ProgrammingError(msg=repr(error), errno=9999, sqlstate="99999") from error


def _execute(cursor: Any, statement: str, params: Any, *rest: Any, **options: Any) -> Any:
    if match := PUT.match(statement):
        EXECUTE(cursor, f"create stage if not exists {USER_STAGE}")
        return EXECUTE(cursor, f"PUT {match[1]} @{USER_STAGE}/{match[2]}", None, *rest, **options)
    if NOTHING_TO_DO.match(statement):
        return EXECUTE(cursor, "select 'ok' as result")
    if match := TIME_ZONE.match(statement):
        zone["of sessions"] = match[1]
        return EXECUTE(cursor, "select 'ok' as result")
    if match := MERGE.match(statement):
        table, columns, path, newest, condition = in_our_words(match)
        with WRITING, staged(cursor, table, path) as (lines, _):
            EXECUTE(cursor, f"create table {lines}_S as {columns} from {lines} {newest}")
            return EXECUTE(cursor, f"merge into {table} d using {lines}_S s {condition}", params)
    if match := COPY.match(statement):
        table, names, columns, path = in_our_words(match)
        with WRITING, staged(cursor, table, path) as (lines, count):
            EXECUTE(cursor, f"insert into {table} {names} select {columns} from {lines} order by N")
            return EXECUTE(
                cursor,
                f"select 'f' as file, 'LOADED' as status, {count}::bigint a, {count}::bigint b",
            )
    # Snowflake enforces no primary key; DuckDB would, and hide that rows are doubled.
    statement = PRIMARY_KEY.sub("", statement)
    # dbt qualifies the names of temporary tables, which DuckDB refuses. It also drops or replaces
    # them itself, so that a table does as well.
    statement = TEMPORARY.sub(r"\1 ", statement)
    return EXECUTE(cursor, statement, params, *rest, **options)


def in_our_words(match: re.Match[str]) -> tuple[str, ...]:
    """Tell the parts of a statement, with the names of the columns that `staged` makes."""
    return tuple(part.replace("$1:", "C:").replace("SEQ8()", "N") for part in match.groups())


@contextlib.contextmanager
def staged(cursor: Any, table: str, path: str) -> Iterator[tuple[str, int]]:
    """Make a table of the lines of the uploaded files: N, the line's number, and C, the line."""
    schema = table.rpartition(".")[0]
    EXECUTE(cursor, f"use schema {schema}")
    lines = f"{schema}._STAGED_{uuid.uuid4().hex}"
    EXECUTE(cursor, f"create table {lines} (N INTEGER, C VARIANT)")
    count = 0
    for file in sorted(Path(stage.internal_dir(USER_STAGE, path)).iterdir()):
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", encoding="utf-8") as text:
            for line in text:
                count += 1
                literal = line.strip().replace("\\", "\\\\").replace("'", "''")
                EXECUTE(cursor, f"insert into {lines} select {count}, parse_json('{literal}')")
    # The emulator's own answers have to be in UTC; what is loaded meets the session's time zone.
    session = cursor._duck_conn
    session.execute(f"SET TimeZone = '{zone['of sessions']}'")
    try:
        yield lines, count
    finally:
        session.execute("SET TimeZone = 'UTC'")
        with cursor._conn.cursor() as other:  # the first still holds the result
            EXECUTE(other, f"drop table if exists {lines}_S")
            EXECUTE(other, f"drop table {lines}")


FakeSnowflakeCursor.execute = execute

if __name__ == "__main__":
    with server() as connection:
        print(json.dumps(connection), flush=True)
        os.dup2(2, 1)  # the server logs each request to stdout, which nobody reads
        sys.stdin.read()
