"""The dbt models on a real Postgres, run for many moments: the current ones and those of before."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))
import embedded  # noqa: E402
import psycopg  # noqa: E402
from cases import DAY, HOUR  # noqa: E402
from scoring import Answer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from cases import Case

BEFORE = "aa37779"
"""The last commit with the models of before."""
FOLLOWED = 4 * 24
"""Hours for which an account is followed; more accounts cost less time than more hours."""

TABLES = """
CREATE SCHEMA tap_balance;
CREATE TABLE tap_balance.balance (
  snapshot_id text PRIMARY KEY, account text NOT NULL, product text NOT NULL,
  snapshot_at timestamp NOT NULL, observed_at timestamp NOT NULL, currency text,
  balance10000 bigint NOT NULL, gift_balance10000 bigint NOT NULL,
  total_balance10000 bigint NOT NULL, balance numeric(38, 4) NOT NULL,
  gift_balance numeric(38, 4) NOT NULL, total_balance numeric(38, 4) NOT NULL
);
CREATE INDEX ON tap_balance.balance (snapshot_at);
CREATE TABLE cases (account text, first_at timestamp, paid bigint[], gift bigint[]);
"""
# A null in the arrays is a missing snapshot.
ROWS = """
TRUNCATE tap_balance.balance;
INSERT INTO tap_balance.balance
SELECT account || '@' || to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), account, 'sms', at,
  at + interval '2 seconds', 'USD', own, free, own + free, own * 0.0001, free * 0.0001,
  (own + free) * 0.0001
FROM cases
CROSS JOIN LATERAL unnest(paid, gift) WITH ORDINALITY AS hours (own, free, number)
CROSS JOIN LATERAL (SELECT first_at + (number - 1) * interval '1 hour') AS hour (at)
WHERE own IS NOT NULL;
ANALYZE tap_balance.balance;
"""
# A plain mean of the complete days among the last N.
MEANS = """
SELECT latest.account, latest.total_balance10000 / nullif(avg(burn10000), 0)
FROM {schema}.balance_latest AS latest
LEFT JOIN {schema}.balance_daily AS daily
  ON daily.account = latest.account AND daily.coverage = 'complete'
  AND daily.day >= %(day)s::date - %(days)s AND daily.day < %(day)s::date
GROUP BY latest.account, latest.total_balance10000
"""


class Models:
    """A dbt project, run again and again by one process into a schema of its own."""

    def __init__(self, name: str, project: Path, socket_folder: str, folder: Path) -> None:
        self.name = name
        self.schema = f"marts_{name}"
        self._job = {"project": str(project), "target_path": str(folder / name)}
        self._process = subprocess.Popen(
            [ROOT / ".venvs" / "dbt" / "bin" / "python", Path(__file__).with_name("run_dbt.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "DBT_TARGET": "postgres",
                "DBT_POSTGRES_HOST": socket_folder,
                "DBT_POSTGRES_SCHEMA": self.schema,
            },
        )

    def start(self, as_of: datetime, *options: str) -> None:
        assert self._process.stdin
        models = ("+balance_runway", "+balance_daily")
        job = self._job | {
            "arguments": ["run", "--select", *models, *options],
            "vars": {"as_of": as_of.isoformat()},
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def finish(self) -> float:
        """Wait for the end of what was started; return the seconds that dbt counts."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"dbt failed: {self._job['project']}")
        return float(line)

    def close(self) -> None:
        self._process.communicate()

    def answers(self, connection: psycopg.Connection) -> dict[str, Answer]:
        columns = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s"
            " AND table_name = 'balance_runway' AND column_name LIKE 'surge%%'",
            [self.schema],
        ).fetchall()
        surge = columns[0][0] if columns else "null"
        rows = connection.execute(
            f"SELECT account, status, days_left, days_left_low, days_left_high, {surge}"
            f" FROM {self.schema}.balance_runway".encode()
        )
        return {
            account: Answer(status, *(None if value is None else float(value) for value in days))
            for account, status, *days in rows
        }

    def means(self, connection: psycopg.Connection, days: int) -> dict[str, Answer]:
        rows = connection.execute(
            MEANS.format(schema=self.schema).encode(), {"day": DAY, "days": days}
        )
        return {account: Answer(None, left and float(left)) for account, left in rows}


Answers = dict[str, dict[str, Answer]]
"""By estimator, then by case."""


def judged(
    cases: Sequence[Case], connection: psycopg.Connection, models: Sequence[Models]
) -> Answers:
    """The answers of the models and of two means to each case; a build for each hour of the day."""
    found: Answers = defaultdict(dict)
    for hour in range(24):
        own = [case for case in cases if case.hour_of_day == hour]
        if own:
            _load(connection, own)
            _run(models, hour, "--full-refresh")
            for each in models:
                found[each.name] |= each.answers(connection)
            for days in (7, 28):
                found[f"mean of {days} days"] |= models[0].means(connection, days)
    return found


def followed(
    spans: Sequence[Case], connection: psycopg.Connection, models: Sequence[Models]
) -> dict[str, dict[str, list[Answer]]]:
    """The same for each hour of the days that begin with each case, by incremental runs."""
    found: dict[str, dict[str, list[Answer]]] = {each.name: defaultdict(list) for each in models}
    _load(connection, spans, more=FOLLOWED - 1)
    for hour in range(FOLLOWED):
        _run(models, hour, *([] if hour else ["--full-refresh"]))
        for each in models:
            for case, answer in each.answers(connection).items():
                found[each.name][case].append(answer)
    return found


def _load(connection: psycopg.Connection, cases: Iterable[Case], more: int = 0) -> None:
    connection.execute("TRUNCATE cases")
    with connection.cursor().copy("COPY cases FROM STDIN") as copy:
        for case in cases:
            copy.write_row(case.row(more))
    connection.execute(ROWS)


def _run(models: Sequence[Models], hour: int, *options: str) -> None:
    """Run them beside one another, five minutes after the snapshots of that hour."""
    for each in models:
        each.start(DAY + hour * HOUR + HOUR / 12, *options)
    seconds = ", ".join(f"{each.name} {each.finish():.1f} s" for each in models)
    print(f"{hour}:05: {seconds}", flush=True)


@contextmanager
def database() -> Iterator[tuple[psycopg.Connection, str, Path]]:
    """A Postgres of its own: a connection, the folder of its socket, and one for files."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with (
            embedded.postgres(folder / "data") as server,
            psycopg.connect(server.uri, autocommit=True) as connection,
        ):
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(TABLES)
            yield connection, server.socket_folder, folder


@contextmanager
def both() -> Iterator[tuple[psycopg.Connection, Models, Models]]:
    """The current models and those of before, on one database."""
    with (
        database() as (connection, socket_folder, folder),
        closing(Models("new", ROOT / "transform", socket_folder, folder)) as current,
        closing(Models("old", of_before(folder), socket_folder, folder)) as before,
    ):
        yield connection, current, before


def of_before(folder: Path) -> Path:
    """The dbt project of before, out of this repository's history."""
    done = subprocess.run(
        ["git", "-C", ROOT, "archive", BEFORE, "transform"], capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"the history of this repository is needed, down to {BEFORE}: {done.stderr!r}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(folder / "before", filter="data")
    return folder / "before" / "transform"
