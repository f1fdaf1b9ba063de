"""`make demo` and `make demo-airflow`, as processes."""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from deployment import processes_with, secrets_below
from history import ACCOUNTS
from pages import README
from parts import ROOT
from runners import demo

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
    return " ".join(re.sub(r"\d+", "0", re.sub(r" \.+ ", " ", line)).split())


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
OF_THE_AIRFLOW_DEMO = f"TMPDIR={AIRFLOW_HOME / 'tmp'}"


def test_the_demo_shows_a_scheduled_run_and_its_rows_and_leaves_nothing_running() -> None:
    with demo("airflow_demo.py", OF_THE_USER) as process:
        stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stdout + stderr
    assert stderr == ""
    for task in ("plan", "load +1/2", "load +2/2", "check", "publish"):
        assert re.search(rf"tap_balance +{task} +success \(try", stdout)
    for task in ("build", "alerts"):
        assert re.search(rf"tap_balance_runway +{task} +success \(try 1, ", stdout)
    for name in ("main", "marketing", "otp"):
        assert re.search(rf"^ {name}@\d{{4}}-\d\d-\d\dT\d\d:\d\d:00Z ", stdout, re.MULTILINE)
    logs = {path.parent.name for path in (AIRFLOW_HOME / "logs").rglob("attempt=1.log")}
    assert {"map_index=0", "map_index=1", "task_id=check"} <= logs
    assert secrets_below(AIRFLOW_HOME) == []
    assert processes_with(OF_THE_AIRFLOW_DEMO, AIRFLOW_HOME) == []


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
