"""One task of the DAG: at once with others in one Meltano project, and ended before its time."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import yaml
from deployment import ACCOUNTS, DAG_FOLDER, PYTHON, processes_with
from parts import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]


SHARD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import tap_balance as dag
load = dag.Load(task_id="load", shard=sys.argv[3])
variables = dag.environment(json.loads(sys.argv[2]), sys.argv[3])
sys.exit(load._run(variables, *dag.pipeline(sys.argv[3])))
"""


def test_shards_at_once_in_one_project_and_a_shard_run_twice_make_one_row_per_account(
    deployment: Deployment, tmp_path: Path
) -> None:
    other_machine = tmp_path / "meltano"
    other_machine.mkdir()
    for name in ("extractors", "loaders"):
        (other_machine / name).symlink_to(ROOT / ".meltano" / name)
    settings = {
        "TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS),
        "TAP_BALANCE_BASE_URL": deployment.sandbox_url,
        "TARGET_POSTGRES_SQLALCHEMY_URL": deployment.sqlalchemy_url,
    }

    def start(shard: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PYTHON, "-c", SHARD, DAG_FOLDER, json.dumps(settings | more), shard],
            env=deployment.airflow({}).environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = start("1/2")  # alone, because it creates the table
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    runs = [start("1/2"), start("2/2"), start("2/2", MELTANO_SYS_DIR_ROOT=str(other_machine))]
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


def test_a_task_installs_nothing(deployment: Deployment, tmp_path: Path) -> None:
    """Shards at once would install over each other; Meltano 4.4.1 does so whatever it is told."""
    plugins = {
        kind: [{"name": name, "namespace": kind, "pip_url": "./not-there"}]
        for kind, name in (("extractors", "tap-balance"), ("loaders", "target-postgres"))
    }
    project = {"environments": [{"name": "prod"}], "plugins": plugins}
    (tmp_path / "meltano.yml").write_text(yaml.safe_dump(project))
    (tmp_path / ".meltano").mkdir()
    done = subprocess.run(
        [PYTHON, "-c", SHARD, DAG_FOLDER, "{}", "1/1"],
        env=deployment.airflow({}, PROJECT=str(tmp_path)).environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "could not be found" in done.stdout
    assert "nstalling" not in done.stdout


KILLED = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import tap_balance as dag
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

load = dag.Load(task_id="load", shard="1/1")
# As Airflow's task runner does: a SIGTERM calls on_kill, the time-out raises.
signal.signal(signal.SIGTERM, lambda *_: load.on_kill())
try:
    with timeout(300):
        variables = dag.environment(json.loads(sys.argv[2]), "1/1")
        print("status", load._run(variables, *dag.pipeline("1/1")))
except AirflowTaskTimeout:
    load.on_kill()
    print("time-out")
"""


@pytest.mark.parametrize(
    ("signum", "outcome"),
    [(signal.SIGTERM, r"status (-?[1-9]\d*)"), (signal.SIGALRM, "time-out")],
    ids=["Airflow ends the task", "the execution time-out"],
)
def test_a_task_that_is_ended_takes_meltano_tap_and_target_along(
    deployment: Deployment, signum: signal.Signals, outcome: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {
            "TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS[:1]),
            "TAP_BALANCE_BASE_URL": url,
            "TARGET_POSTGRES_SQLALCHEMY_URL": deployment.sqlalchemy_url,
        }
        with subprocess.Popen(
            [PYTHON, "-c", KILLED, DAG_FOLDER, json.dumps(settings)],
            stdout=subprocess.PIPE,
            text=True,
            env=deployment.airflow({}).environment,
        ) as process:
            connection, _ = silent.accept()  # the tap waits for an answer from now on
            with connection:
                assert len(processes_with(f"TAP_BALANCE_BASE_URL={url}")) >= 2
                process.send_signal(signum)
                began = time.monotonic()
                stdout, _ = process.communicate(timeout=30)
        assert time.monotonic() - began < 20
        assert re.fullmatch(outcome, stdout.splitlines()[-1]), stdout
        assert processes_with(f"TAP_BALANCE_BASE_URL={url}") == []
