"""`make demo` and `make demo-airflow`, as processes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from bank import serving
from deployment import processes_with, secrets_below
from history import ACCOUNTS
from pages import README
from parts import ROOT
from receivers import Hook
from runners import demo

if TYPE_CHECKING:
    import subprocess

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

NAMES = [account.name for account in ACCOUNTS]
OF_THE_DEMO = (str(ROOT / "demo-output" / "postgres"), str(ROOT / "demo" / "demo.py"))


def left_running() -> list[str]:
    """Command lines of the demo itself and of its Postgres that are still there."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(path in command for path in OF_THE_DEMO):
                found.append(command)
    return found


# What a user may have exported; no demo may ask, load or migrate there.
OF_THE_USER = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/airflow.db",
    "DBT_POSTGRES_HOST": "127.0.0.1",
    "PGHOSTADDR": "127.0.0.1",
    "PGPORT": "9",
    "TAP_BALANCE_DEV_KEY": "a-real-key",
    "TARGET_POSTGRES_SQLALCHEMY_URL": "postgresql+psycopg://loader@127.0.0.1:9/production",
}


def shape(line: str) -> str:
    """A line of the demo without what depends on the time: numbers, days, signs of life."""
    line = re.sub(r"today|tomorrow|on \d{4}-\d\d-\d\d", "DAY", line)
    return " ".join(re.sub(r"\d+(\.\d+)?", "0", re.sub(r" \.+ ", " ", line)).split())


def test_the_demo_prints_what_the_readme_shows_and_leaves_nothing_running() -> None:
    with demo("demo.py", OF_THE_USER) as process:
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert stderr == ""
    printed = [shape(line) for line in stdout.splitlines()]
    [shown] = [text for _, text in README.blocks if text.startswith("$ make demo\n")]
    for line in shown.partition("\n$ make test")[0].splitlines()[1:]:
        start, cut, _ = shape(line).partition(" ...")
        assert start in printed or (cut and any(each.startswith(start) for each in printed)), stdout
    [before, after] = re.findall(r"([\d,]+) rows before, ([\d,]+) after", stdout)[0]
    assert before == after
    alerts = re.findall(r"^  (?:new|ongoing) +account (\S+) (?:is )?(\w+)", stdout, re.MULTILINE)
    first = [("reminders", "critical"), ("marketing", "low")]
    assert alerts == [*first, ("login", "burns"), *first]
    assert "balance numeric(38,4)" in stdout
    page = (ROOT / "demo-output" / "report.html").read_text(encoding="utf-8")
    assert [name for name in NAMES if name not in page] == []
    # Meltano's own folder is where it ran: not in the repository's, which may have a .env.
    assert (ROOT / "demo-output" / "project" / ".meltano" / "meltano.db").exists()
    assert left_running() == []


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_stops_what_it_started(signum: signal.Signals, status: int) -> None:
    with demo("demo.py") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Starting a Postgres"):
            assert process.poll() is None
        time.sleep(1)
        assert left_running() != []
        process.send_signal(signum)
        process.communicate(timeout=60)
    assert process.returncode == status
    assert left_running() == []


AIRFLOW_HOME = ROOT / "demo-output" / "airflow"
WATCHED = str(ROOT / "tests" / "support" / "watched_demo.py")
OF_THE_AIRFLOW_DEMO = f"TMPDIR={AIRFLOW_HOME / 'tmp'}"


LOST = """
import time
from airflow.providers.http.notifications.http import HttpNotifier
from airflow.sdk import dag, task
from tap_balance_airflow import pipeline, settings

settings.notifiers = lambda: [HttpNotifier(http_conn_id="hook", json={"text": "{{ message }}"})]

@dag(schedule="@once", default_args={"on_failure_callback": pipeline.notify_failure})
def lost():
    @task
    def wait():
        time.sleep(600)
    wait()

lost()
"""


@dataclass
class Watched:
    """What a run of the demo has printed, and the messages of the DAG beside."""

    status: int
    stdout: str
    stderr: str
    messages: list[tuple[str, Any]]


def lose_the_worker(demo: subprocess.Popen[str], metadata: Path) -> None:
    """Kill the worker of `lost.wait` with its task, and let Airflow notice it soon."""
    deadline = time.monotonic() + 240
    running = (
        "SELECT pid FROM task_instance WHERE dag_id = 'lost' AND state = 'running' AND pid > 0"
    )
    found: list[tuple[int]] = []
    while not found:
        assert demo.poll() is None, demo.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(metadata)) as connection:
            found = connection.execute(running).fetchall()
    process = psutil.Process(found[0][0])
    for each in (process.parent(), process):
        assert each
        each.kill()
    with closing(sqlite3.connect(metadata, timeout=30)) as connection, connection:
        connection.execute(
            "UPDATE task_instance SET last_heartbeat_at = '2026-01-01 00:00:00.000000' "
            "WHERE dag_id = 'lost'"
        )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "lost.py").write_text(LOST)
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
    with Hook() as hook, serving(hook):
        more = {
            "AIRFLOW_CONN_HOOK": json.dumps(
                {"conn_type": "http", "host": f"http://127.0.0.1:{hook.server_port}"}
            )
        }
        arguments = [str(folder / "lost.py"), str(folder / "seen"), json.dumps(more)]
        with demo(WATCHED, OF_THE_USER, *arguments) as process:
            lose_the_worker(process, AIRFLOW_HOME / "airflow.db")
            deadline = time.monotonic() + 60
            while not hook.received and time.monotonic() < deadline:
                time.sleep(0.1)
            (folder / "seen").touch()
            stdout, stderr = process.communicate(timeout=240)
        return Watched(process.returncode, stdout, stderr, hook.received)


def test_the_demo_shows_a_scheduled_run_and_its_rows_and_leaves_nothing_running(
    watched: Watched,
) -> None:
    stdout = watched.stdout
    assert watched.status == 0, stdout + watched.stderr
    assert watched.stderr == ""
    for task in ("plan", "load +1/2", "load +2/2", "check", "publish"):
        assert re.search(rf"tap_balance +{task} +success \(try", stdout)
    for task in ("build", "alerts"):
        assert re.search(rf"tap_balance_runway +{task} +success \(try 1, ", stdout)
    for name in ("main", "marketing", "otp"):
        assert re.search(rf"^ {name}@\d{{4}}-\d\d-\d\dT\d\d:\d\d:00Z ", stdout, re.MULTILINE)
    logs = {path.parent.name for path in (AIRFLOW_HOME / "logs").rglob("attempt=1.log")}
    assert {"map_index=0", "map_index=1", "task_id=check"} <= logs
    assert processes_with(OF_THE_AIRFLOW_DEMO, AIRFLOW_HOME) == []


@pytest.mark.usefixtures("watched")
def test_no_secret_is_in_a_log_or_the_metadata_when_all_log_what_they_can() -> None:
    logs = [path for path in AIRFLOW_HOME.rglob("*.log") if b"DEBUG" in path.read_bytes().upper()]
    assert logs
    assert secrets_below(AIRFLOW_HOME) == []


def test_a_worker_that_is_lost_is_a_message(watched: Watched) -> None:
    """The DAG processor sends it, as the task itself is gone."""
    assert {body["text"] for _, body in watched.messages} == {
        "lost.wait: its worker was lost; see the log"
    }


def test_an_interrupted_demo_ends_airflow_and_what_it_runs() -> None:
    with demo("airflow_demo.py", OF_THE_USER) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Starting Airflow"):
            assert process.poll() is None
        deadline = time.monotonic() + 60
        while not any("--state-id-suffix" in line for line in processes_with(OF_THE_AIRFLOW_DEMO)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert processes_with(OF_THE_AIRFLOW_DEMO, AIRFLOW_HOME) == []
