"""The DAGs on the CeleryExecutor: workers that share nothing, and what can happen to them.

Left out of `make test`; `make test-celery` runs it as root. A larger run takes its sizes from the
environment: CELERY_WORKERS=3 CELERY_ACCOUNTS=2000 CELERY_SHARDS=8 CELERY_OUTAGE=60.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow_celery
import embedded
import psycopg
import pytest
from airflow_celery import BROKER_SECRET, DATABASE_SECRET, METADATA_SECRET, Cluster
from system_programs import apt_install, report_missing

from tap_balance.sandbox import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.celery, pytest.mark.usefixtures("meltano")]

WORKERS = int(os.environ.get("CELERY_WORKERS", "2"))
SHARDS = os.environ.get("CELERY_SHARDS", "4")
OUTAGE = float(os.environ.get("CELERY_OUTAGE", "30"))
"""Seconds that the broker, and the destination, are gone."""

ACCOUNTS = [
    {"account": f"account {number}", "dev_key": "sandbox-example", "dev_secret": SECRET}
    for number in range(int(os.environ.get("CELERY_ACCOUNTS", "200")))
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if airflow_celery.missing():
        apt_install("redis-server")
    if reason := airflow_celery.missing():
        report_missing(reason)
    with tempfile.TemporaryDirectory(prefix="tap-balance-celery-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        with embedded.postgres(home / "postgres") as database:
            cluster = Cluster(
                home / "airflow",
                # 200 accounts in 4 shards, 0.5 s each, 5 at once: a load lasts 5 s.
                {"TAP_BALANCE_CURRENCY": "USD", "TAP_BALANCE_MAX_CONCURRENCY": "5"},
                ACCOUNTS,
                # What becomes due while the broker is gone fails at once: the retries, after 5, 10,
                # 20 and 40 s, have to outlast that.
                {"SHARDS": SHARDS, "RETRIES": "4", "RETRY_SECONDS": "5", "MINUTES": "1440"},
                database,
                workers=WORKERS,
                latency=0.5,
            )
            cluster.environment["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "True"
            with cluster.running():
                cluster.wait_until("SELECT 1 FROM dag HAVING count(*) = 2", patience=120)
                # The other DAG stays paused, since dbt would keep the machine busy.
                assert cluster.run("dags", "unpause", "tap_balance").returncode == 0
                ended = "SELECT 1 FROM dag_run WHERE run_type = 'scheduled' AND state = 'success'"
                cluster.wait_until(ended, patience=300)
                yield cluster


LASTED: dict[str, float] = {}
"""Test -> seconds that its run lasted."""


@pytest.fixture(scope="module", autouse=True)
def durations(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    plugin = request.config.pluginmanager.get_plugin
    reporter: Any = plugin("terminalreporter")
    capture: Any = plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        for test, seconds in LASTED.items():
            reporter.write_line(f"{seconds:4.0f} s for the run of {test}")


class Run:
    """A run of `tap_balance` that was started by hand."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        left = 86_400 - time.time() % 86_400
        if left < 600:
            time.sleep(left)
        with psycopg.connect(cluster.database.uri) as connection:
            connection.execute("DROP SCHEMA IF EXISTS tap_balance CASCADE")
        done = cluster.run("dags", "trigger", "tap_balance", "--output", "json")
        assert done.returncode == 0, done.stdout
        found = cluster.query(
            "SELECT run_id FROM dag_run WHERE dag_id = 'tap_balance' ORDER BY id DESC LIMIT 1"
        )
        self.run_id = found[0][0]
        self.began = time.monotonic()

    def wait_for(self, condition: str, patience: float = 120) -> list[tuple[Any, ...]]:
        return self.cluster.wait_until(
            f"SELECT task_id, hostname FROM task_instance WHERE run_id = ? AND {condition}",
            self.run_id,
            patience=patience,
        )

    def ends(self, patience: float = 600) -> str:
        [(state,)] = self.cluster.wait_until(
            "SELECT state FROM dag_run WHERE run_id = ? AND state IN ('success', 'failed')",
            self.run_id,
            patience=patience,
        )
        self.lasted = time.monotonic() - self.began
        LASTED[os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]] = self.lasted
        return str(state)

    def tasks(self) -> dict[str, tuple[str, int, str]]:
        rows = self.cluster.query(
            "SELECT task_id || coalesce(' ' || rendered_map_index, ''), state, try_number, "
            "hostname FROM task_instance WHERE run_id = ?",
            self.run_id,
        )
        return {task: (state, tries, host) for task, state, tries, host in rows}

    def story(self) -> str:
        """What became of the tasks, and the errors that the scheduler has logged of them."""
        log = (self.cluster.home / "scheduler.log").read_text(errors="replace")
        errors = [line for line in log.splitlines() if self.run_id in line and "error" in line]
        return "\n".join([*map(str, sorted(self.tasks().items())), *errors, self.log("load")])

    def log(self, task: str) -> str:
        logs = [
            path.read_text()
            for worker in self.cluster.workers
            for path in (worker.files / "logs").rglob("*.log")
            if self.run_id in str(path) and f"task_id={task}" in str(path)
        ]
        return "\n".join(logs)


def rows_of(cluster: Cluster) -> list[str]:
    with psycopg.connect(cluster.database.uri) as connection:
        rows = connection.execute("SELECT account FROM tap_balance.balance").fetchall()
    return sorted(account for (account,) in rows)


EVERY_ACCOUNT_ONCE = sorted(entry["account"] for entry in ACCOUNTS)


def test_the_workers_share_a_run_and_each_account_has_one_row(cluster: Cluster) -> None:
    run = Run(cluster)
    assert run.ends() == "success", run.story()
    assert rows_of(cluster) == EVERY_ACCOUNT_ONCE
    hosts = {host for task, (_, _, host) in run.tasks().items() if task.startswith("load")}
    assert hosts == {worker.name for worker in cluster.workers}


def test_a_worker_that_is_killed_costs_a_minute_and_no_row(cluster: Cluster) -> None:
    run = Run(cluster)
    victim = cluster.workers[0]
    run.wait_for(f"task_id = 'load' AND state = 'running' AND hostname = '{victim.name}'")
    time.sleep(3)
    victim.kill()
    victim.start()
    assert run.ends() == "success", run.story()
    assert rows_of(cluster) == EVERY_ACCOUNT_ONCE
    assert max(tries for _, tries, _ in run.tasks().values()) == 2
    assert run.lasted < 240


def test_a_worker_that_gets_sigterm_costs_no_row(cluster: Cluster) -> None:
    run = Run(cluster)
    victim = cluster.workers[0]
    run.wait_for(f"task_id = 'load' AND state = 'running' AND hostname = '{victim.name}'")
    victim.terminate()
    victim.start()
    assert run.ends() == "success", run.story()
    assert rows_of(cluster) == EVERY_ACCOUNT_ONCE


def test_a_worker_that_is_cut_off_for_a_minute_costs_no_row(cluster: Cluster) -> None:
    run = Run(cluster)
    victim = cluster.workers[0]
    run.wait_for(f"task_id = 'load' AND state = 'running' AND hostname = '{victim.name}'")
    with victim.cut_off():
        time.sleep(60)
    assert run.ends() == "success", run.story()
    assert rows_of(cluster) == EVERY_ACCOUNT_ONCE


def test_a_broker_that_is_gone_and_empty_then_costs_no_row(cluster: Cluster) -> None:
    run = Run(cluster)
    run.wait_for("task_id = 'load' AND state IN ('queued', 'running')")
    cluster.stop_broker()
    time.sleep(OUTAGE)
    cluster.start_broker()
    assert run.ends() == "success", run.story()
    assert rows_of(cluster) == EVERY_ACCOUNT_ONCE


def test_a_destination_that_is_gone_costs_no_row(cluster: Cluster) -> None:
    run = Run(cluster)
    run.wait_for("task_id = 'load' AND state = 'running'")
    with cluster.destination.closed():
        time.sleep(OUTAGE)
    assert run.ends() == "success", run.story()
    assert rows_of(cluster) == EVERY_ACCOUNT_ONCE


def test_a_worker_with_an_older_accounts_file_fails_and_is_named(cluster: Cluster) -> None:
    stale = cluster.workers[0]
    text = stale.accounts.read_text()
    stale.accounts.write_text("\n".join(text.splitlines()[:-1]))
    try:
        run = Run(cluster)
        state = run.ends()
    finally:
        stale.accounts.write_text(text)
    # Whoever has planned, some shard or the check has met the other list.
    assert state == "failed", run.story()
    logs = "".join(run.log(task) for task in ("load", "check"))
    assert re.search(
        r"worker-\d has other accounts than the plan of this run: \d+ \(.*, planned \d+ \(",
        logs,
    )


def test_a_worker_whose_clock_is_off_stores_nothing_in_another_interval(cluster: Cluster) -> None:
    library = faketime()
    late = cluster.workers[0]
    late.terminate()
    late.start({"LD_PRELOAD": library, "FAKETIME": "-30h", "DONT_FAKE_MONOTONIC": "1"})
    try:
        run = Run(cluster)
        run.wait_for(f"task_id = 'load' AND hostname = '{late.name}'")
        # It fails fast, and may draw all tries of a shard to itself.
        state = run.ends()
    finally:
        late.kill()
        late.start()
    with psycopg.connect(cluster.database.uri) as connection:
        rows = connection.execute("SELECT DISTINCT snapshot_at FROM tap_balance.balance").fetchall()
    assert [at for (at,) in rows] == [datetime.now(timezone.utc).replace(tzinfo=None, **MIDNIGHT)]
    log = run.log("load")
    assert f"on {late.name}: snapshot_at: is more than five minutes ahead of the clock" in log
    assert (state == "success") == (rows_of(cluster) == EVERY_ACCOUNT_ONCE)


MIDNIGHT: dict[str, int] = {"hour": 0, "minute": 0, "second": 0, "microsecond": 0}


def faketime() -> str:
    apt_install("faketime")
    libraries = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        report_missing("libfaketime is missing: install the package faketime")
    return str(libraries[0])


def test_no_secret_is_in_a_log_the_broker_or_the_metadata(cluster: Cluster) -> None:
    logs = [path for path in cluster.home.rglob("*") if path.suffix in {".log", ".aof"}]
    assert {".log", ".aof"} == {path.suffix for path in logs}
    texts = {str(path): path.read_bytes() for path in logs if "postgres" not in path.parts}
    assert any(b"tap_balance" in text for place, text in texts.items() if place.endswith(".aof"))
    uri = cluster.database.uri.replace("/postgres?", "/airflow?", 1)
    tables = cluster.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    with psycopg.connect(uri) as connection:
        for (table,) in tables:
            rows = connection.execute(f'SELECT t::text FROM "{table}" t'.encode()).fetchall()
            texts[table] = repr(rows).encode()
    assert "rendered_task_instance_fields" in texts
    for secret in (SECRET, DATABASE_SECRET, METADATA_SECRET, BROKER_SECRET):
        assert [place for place, text in texts.items() if secret.encode() in text] == []
