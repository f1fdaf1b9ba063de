"""Meltano as the tasks run it: at once with others in one project, and ended before its time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from datetime import time as time_of_day
from typing import TYPE_CHECKING

import pytest
import yaml
from airflow_home import copy_dags
from deployment import ACCOUNTS, PYTHON, pids_with, processes_with, secrets_in
from parts import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_home import Airflow
    from deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

HOST = socket.gethostname()


LOAD = """
import json, os, signal, sys
from datetime import datetime, timezone
from types import SimpleNamespace
sys.path.insert(0, os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
from tap_balance_airflow import pipeline, settings

shard, began, constants = json.loads(sys.argv[1])
began = datetime.fromtimestamp(began, tz=timezone.utc)
minutes, settings.MINUTES = settings.MINUTES, 1440
shapes = pipeline.plan(
    dag_run=SimpleNamespace(start_date=began), params={"shards": int(shard[-1])}
)
[shape] = [shape for shape in shapes if shape["TAP_BALANCE_SHARD"] == shard]
vars(settings).update({"MINUTES": minutes} | constants)
load = pipeline.Meltano(task_id="load", run="tap-balance target-postgres", shape=shape)
# As Airflow's task runner does: a SIGTERM calls on_kill, the time-out raises.
signal.signal(signal.SIGTERM, lambda *_: load.on_kill())
try:
    with timeout(300):
        load.execute({})
except AirflowTaskTimeout:
    load.on_kill()
    sys.exit("time-out")
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def airflow(deployment: Deployment) -> Airflow:
    # One for all processes of a test: making it replaces the DAG folder.
    return deployment.airflow({})


def start(
    deployment: Deployment,
    airflow: Airflow,
    shard: str = "1/1",
    *,
    began: float | None = None,
    env: dict[str, str] | None = None,
    **constants: str,
) -> subprocess.Popen[str]:
    """Run the task `load` in a process of its own, of a daily run that began then.

    These constants of settings.py are other ones when it loads.
    """
    settings = {
        "TAP_BALANCE_ACCOUNTS": ACCOUNTS,
        "TAP_BALANCE_BASE_URL": deployment.sandbox_url,
        "TARGET_POSTGRES_SQLALCHEMY_URL": deployment.sqlalchemy_url,
        **(env or {}),
    }
    connection = json.dumps({"conn_type": "generic", "extra": settings})
    return subprocess.Popen(
        [PYTHON, "-c", LOAD, json.dumps([shard, began or time.time(), constants])],
        # As in an image that is run read-only, nothing can be written into the home.
        env=airflow.environment | {"AIRFLOW_CONN_TAP_BALANCE": connection, "HOME": os.devnull},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_shards_at_once_in_one_project_and_a_shard_run_twice_make_one_row_per_account(
    deployment: Deployment, airflow: Airflow, tmp_path: Path
) -> None:
    other_machine = tmp_path / "meltano"
    other_machine.mkdir()
    for name in ("extractors", "loaders"):
        (other_machine / name).symlink_to(ROOT / ".meltano" / name)
    first = start(deployment, airflow, "1/2")  # alone, because it creates the table
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    elsewhere = {"MELTANO_SYS_DIR_ROOT": str(other_machine)}
    runs = [
        start(deployment, airflow, "1/2"),
        start(deployment, airflow, "2/2"),
        start(deployment, airflow, "2/2", env=elsewhere),
    ]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    one, two, again = (run.returncode for run in runs)
    assert one == 0, outputs[0]
    # target-postgres looks for the keys before it inserts: of two that insert a new key at once,
    # the database may refuse one, whose task Airflow would repeat. Nothing else may go wrong.
    assert 0 in (two, again), outputs
    for status, output in zip((two, again), outputs[1:], strict=True):
        assert status == 0 or "UniqueViolation" in output, output
    rows = deployment.query("SELECT account FROM tap_balance.balance ORDER BY 1")
    assert rows == sorted((entry["account"],) for entry in ACCOUNTS)


def test_all_rows_of_a_run_are_in_the_interval_it_began_in_whatever_a_worker_would_decide(
    deployment: Deployment, airflow: Airflow, tmp_path: Path
) -> None:
    """The interval is over when the shards load, and one worker's MINUTES are others."""
    other = tmp_path / "dags"
    copy_dags(other, airflow.constants | {"MINUTES": "60"})
    began = datetime.now(timezone.utc) - timedelta(days=1)
    for shard in ("1/2", "2/2"):
        run = start(deployment, airflow, shard, began=began.timestamp())
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
        airflow.environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(other)
    rows = deployment.query("SELECT account, snapshot_at FROM tap_balance.balance ORDER BY 1")
    midnight = datetime.combine(began.date(), time_of_day())
    assert rows == sorted((entry["account"], midnight) for entry in ACCOUNTS)


def test_a_task_installs_nothing(deployment: Deployment, airflow: Airflow, tmp_path: Path) -> None:
    """Shards at once would install over each other; Meltano 4.4.1 does so with any settings."""
    plugins = {
        kind: [{"name": name, "namespace": kind, "pip_url": "./not-there"}]
        for kind, name in (("extractors", "tap-balance"), ("loaders", "target-postgres"))
    }
    project = {"environments": [{"name": "prod"}], "plugins": plugins}
    (tmp_path / "meltano.yml").write_text(yaml.safe_dump(project))
    (tmp_path / ".meltano").mkdir()
    (tmp_path / ".meltano" / "extractors").symlink_to(ROOT / ".meltano" / "extractors")
    run = start(deployment, airflow, PROJECT=str(tmp_path))
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    assert f"on {HOST}: Cannot start plugin target-postgres: Executable 'target-pos" in output
    assert "installing" not in output.lower()


@contextmanager
def waiting(
    deployment: Deployment, airflow: Airflow
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a task whose tap waits for a response, and a variable of what it has started."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {"TAP_BALANCE_BASE_URL": url, "TAP_BALANCE_MAX_CONCURRENCY": "1"}
        with start(deployment, airflow, env=env) as process:
            connection, _ = silent.accept()
            with connection:
                yield process, f"TAP_BALANCE_BASE_URL={url}"


@pytest.mark.parametrize(
    ("signum", "outcome"),
    [
        (
            signal.SIGTERM,
            r"AirflowException: load 1/1 .*: (.*SIGTERM.*|Bash command failed\. .* code -?[1-9].*)",
        ),
        (signal.SIGALRM, "time-out"),
    ],
    ids=["Airflow ends the task", "the execution time-out"],
)
def test_a_task_that_is_ended_takes_meltano_tap_and_target_along(
    deployment: Deployment, airflow: Airflow, signum: signal.Signals, outcome: str
) -> None:
    with waiting(deployment, airflow) as (process, variable):
        assert len(processes_with(variable)) >= 2
        process.send_signal(signum)
        began = time.monotonic()
        stdout, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert re.fullmatch(outcome, stdout.splitlines()[-1]), stdout
    deadline = time.monotonic() + 5
    while left := processes_with(variable):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert list((airflow.home / "tmp").iterdir()) == []


def test_what_a_killed_task_leaves_is_private_and_goes_when_any_other_starts(
    deployment: Deployment, airflow: Airflow
) -> None:
    temporary = airflow.home / "tmp"
    with waiting(deployment, airflow) as (process, variable):
        process.kill()
        process.wait(timeout=30)
        for pid in pids_with(variable):
            os.kill(pid, signal.SIGKILL)
    left = [path for path in temporary.rglob("*") if path.is_file()]
    configs = [path for path in left if secrets_in(path.read_bytes())]
    assert configs
    assert {stat.S_IMODE(path.stat().st_mode) for path in configs} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in temporary.iterdir()} == {0o700}
    others = {temporary / f"tap-balance+{name}" for name in (f"{HOST}-2+99999999+x", f"{HOST}+x")}
    for other in others:
        other.mkdir()
    again = start(deployment, airflow, MELTANO="/nowhere/meltano")
    again.communicate(timeout=60)
    assert set(temporary.iterdir()) == others


def test_a_destination_that_is_down_is_retried_and_named(
    deployment: Deployment, airflow: Airflow
) -> None:
    nowhere = "postgresql+psycopg://postgres@/postgres?host=/nowhere"
    run = start(deployment, airflow, env={"TARGET_POSTGRES_SQLALCHEMY_URL": nowhere})
    output, _ = run.communicate(timeout=120)
    message = output.rpartition("AirflowException: ")[2].splitlines()[0]
    assert message.startswith(f"load 1/1 on {HOST}: (psycopg.OperationalError) ")
    assert 'connection to server on socket "/nowhere/.s.PGSQL.5432" failed' in message
    assert "stdout" not in message  # what follows from it


def test_a_project_that_is_not_on_the_worker_is_named(
    deployment: Deployment, airflow: Airflow
) -> None:
    # The shells of Debian and of others differ.
    for project, missing in (("/nowhere", "cd: .*/nowhere"), ("/", "tap-balance/venv/bin/python")):
        run = start(deployment, airflow, PROJECT=project)
        output, _ = run.communicate(timeout=60)
        message = output.splitlines()[-1]
        assert re.match(f"AirflowException: the accounts on {HOST}: .*sh: .*{missing}", message)


def test_a_command_that_is_not_on_the_worker_is_named(
    deployment: Deployment, airflow: Airflow
) -> None:
    run = start(deployment, airflow, MELTANO="/nowhere/meltano")
    output, _ = run.communicate(timeout=60)
    message = output.splitlines()[-1]
    assert re.match(f"AirflowException: load 1/1 on {HOST}: .*sh: .*/nowhere/meltano: ", message)
