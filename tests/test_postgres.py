"""End to end: the real Meltano and the real target, into a real Postgres."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tap_balance.sandbox import SECRET, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import embedded

    from tap_balance.sandbox import Sandbox

    Meltano = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parent.parent
DAY = "P1D"
pytestmark = pytest.mark.e2e


class Pipeline:
    """Loads the balances of some of the sandbox's accounts into a database of its own."""

    def __init__(
        self, meltano: Meltano, sandbox: Sandbox, postgres: embedded.Postgres, database: str
    ) -> None:
        self._meltano = meltano
        self._sandbox = sandbox
        self._folder = postgres.socket_folder
        self._database = database
        self.uri = postgres.uri.replace("/postgres?", f"/{database}?", 1)
        postgres.psql(f"CREATE DATABASE {database}")

    def load(self, *names: str, env: Mapping[str, str] | None = None) -> int:
        settings = settings_of(self._sandbox.url, *names)
        listed = {"TAP_BALANCE_ACCOUNTS": json.dumps(settings["accounts"])} if names else {}
        done = self._meltano(
            "--environment=prod",
            "run",
            "--full-refresh",
            "tap-balance",
            "target-postgres",
            env={
                "TAP_BALANCE_BASE_URL": self._sandbox.url,
                "TAP_BALANCE_CURRENCY": "USD",
                "TAP_BALANCE_REQUEST_TIMEOUT": "20",
                "TAP_BALANCE_MAX_ATTEMPTS": "2",
                "TAP_BALANCE_SNAPSHOT_INTERVAL": DAY,
                "TARGET_POSTGRES_SQLALCHEMY_URL": self.uri.replace("://", "+psycopg://", 1),
            }
            | listed
            | dict(env or {}),
        )
        self.output = done.stdout + done.stderr
        return done.returncode

    def judge(self) -> int:
        """Make the models and alert, as the schedule does after the load."""
        done = self._meltano(
            "--environment=prod",
            "run",
            "dbt-postgres:build",
            "dbt-postgres:alert",
            env={"DBT_POSTGRES_HOST": self._folder, "DBT_POSTGRES_DBNAME": self._database},
        )
        self.output = done.stdout + done.stderr
        return done.returncode

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.uri) as connection:
            return connection.execute(sql.encode()).fetchall()


@pytest.fixture
def pipeline(
    meltano: Meltano,
    sandbox: Sandbox,
    postgres: embedded.Postgres,
    request: pytest.FixtureRequest,
) -> Iterator[Pipeline]:
    # Two runs of one day must not fall on either side of midnight.
    left = 86_400 - time.time() % 86_400
    if left < 60:
        time.sleep(left)
    database = re.sub(r"\W", "_", request.node.name)[:60]
    yield Pipeline(meltano, sandbox, postgres, database)
    postgres.psql(f"DROP DATABASE {database} WITH (FORCE)")


def test_amounts_arrive_exactly_and_in_their_own_types(pipeline: Pipeline) -> None:
    assert pipeline.load("example", "largest", "smallest", "overdrawn", "otp") == 0, pipeline.output
    types = pipeline.query(
        "SELECT column_name, data_type, numeric_precision, numeric_scale "
        "FROM information_schema.columns WHERE table_name = 'balance'"
    )
    for field in ("balance", "gift_balance", "total_balance"):
        assert (field, "numeric", 38, 4) in types
        assert (f"{field}10000", "bigint", 64, 0) in types
    assert ("snapshot_id", "text", None, None) in types
    rows = pipeline.query(
        "SELECT account, balance10000, balance FROM tap_balance.balance WHERE product = 'sms' "
        "ORDER BY account"
    )
    assert rows == [
        ("example", 123456, Decimal("12.3456")),
        ("largest", 2**63 - 1, Decimal("922337203685477.5807")),
        ("overdrawn", -5, Decimal("-0.0005")),
        ("smallest", -(2**63), Decimal("-922337203685477.5808")),
    ]
    assert "sandbox-secret" not in pipeline.output


def test_one_interval_is_one_row_and_two_are_two(pipeline: Pipeline) -> None:
    assert pipeline.load("example") == 0, pipeline.output
    assert pipeline.load("example") == 0, pipeline.output
    assert pipeline.query("SELECT count(*) FROM tap_balance.balance") == [(1,)]
    assert pipeline.load("example", env={"TAP_BALANCE_SNAPSHOT_INTERVAL": "PT1S"}) == 0
    assert pipeline.query("SELECT count(*) FROM tap_balance.balance") == [(2,)]


def test_the_databases_time_zone_changes_neither_keys_nor_instants(pipeline: Pipeline) -> None:
    with psycopg.connect(pipeline.uri, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET timezone TO 'America/New_York'".encode())
    assert pipeline.query("SHOW timezone") == [("America/New_York",)]
    assert pipeline.load("example") == 0, pipeline.output
    assert pipeline.load("example") == 0, pipeline.output
    rows = pipeline.query(
        "SELECT snapshot_id, 'example@' || to_char(snapshot_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
        "FROM tap_balance.balance"
    )
    assert len(rows) == 1
    assert rows[0][0] == rows[0][1]
    assert rows[0][0].endswith("T00:00:00Z")


def test_a_refused_account_leaves_the_others_in_the_table_and_fails_the_run(
    pipeline: Pipeline,
) -> None:
    assert pipeline.load("example", "expired", "empty") == 1
    rows = pipeline.query("SELECT account FROM tap_balance.balance ORDER BY account")
    assert rows == [("empty",), ("example",)]
    assert "account 'expired': HTTP 401, code 2002" in pipeline.output
    assert "Enable the key or create a new one" in pipeline.output


def test_what_was_loaded_is_judged_and_an_empty_account_is_an_alert(pipeline: Pipeline) -> None:
    assert pipeline.load("example", "empty") == 0, pipeline.output
    assert pipeline.judge() == 1
    assert "ALERT (fail) account empty is empty: 0.0000 USD at " in pipeline.output
    rows = pipeline.query(
        "SELECT account, status, total_balance10000 FROM tap_balance_marts.balance_runway "
        "ORDER BY account"
    )
    assert rows == [("empty", "empty", 0), ("example", "accumulating", 143456)]


def _demo(**options: Any) -> subprocess.Popen[str]:  # noqa: ANN401
    return subprocess.Popen(
        [sys.executable, ROOT / "demo" / "demo.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        **options,
    )


def _servers() -> list[str]:
    """The command lines of the demo's Postgres and Meltano processes that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(ROOT / "demo-output" / "postgres") in command or "demo/demo.py" in command:
            found.append(command)
    return found


def test_ten_thousand_accounts_go_through_meltano(pipeline: Pipeline, tmp_path: Path) -> None:
    entry = {"dev_key": "sandbox-example", "dev_secret": SECRET}
    lines = [json.dumps({"account": f"a{number}", **entry}) for number in range(10_000)]
    lines[5_000] = json.dumps(
        {"account": "refused", "dev_key": "sandbox-expired", "dev_secret": SECRET}
    )
    path = tmp_path / "accounts.jsonl"
    path.write_text("\n".join(lines))
    assert pipeline.load(env={"TAP_BALANCE_ACCOUNTS_FILE": str(path)}) == 1
    assert "account 'refused': HTTP 401, code 2002" in pipeline.output
    rows = pipeline.query(
        "SELECT count(*), count(DISTINCT account), sum(balance) FROM tap_balance.balance"
    )
    assert rows == [(9_999, 9_999, 9_999 * Decimal("12.3456"))]


def test_the_demo_shows_types_and_rows_and_leaves_nothing_running(meltano: Meltano) -> None:
    assert meltano is not None
    with _demo() as process:
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert stderr == ""
    assert "numeric                     |        38 |     4" in stdout
    assert "(6 rows)" in stdout
    announced = re.findall(r"account drained is (\w+): ", stdout)
    assert announced == ["low", "critical", "empty"]
    page = (ROOT / "demo-output" / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == 4
    rows = (ROOT / "demo-output" / "balance.csv").read_text().splitlines()
    assert len(rows) == 7
    assert _servers() == []


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_stops_what_it_started(
    meltano: Meltano, signum: signal.Signals, status: int
) -> None:
    assert meltano is not None
    with _demo() as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Starting a Postgres"):
            pass
        time.sleep(1)
        assert _servers() != []
        process.send_signal(signum)
        process.communicate(timeout=60)
    assert process.returncode == status
    assert _servers() == []
