"""The DAGs' files in Airflow's own Python: how they parse, and what their functions decide."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow_home import Airflow, copy_dags
from deployment import ACCOUNTS, PYTHON
from parts import ROOT

from tap_balance.sandbox import SECRET
from tap_balance.snapshots import parse_interval, snapshot_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]


PARSE = """
import json, sys, time, warnings
from airflow.dag_processing.dagbag import DagBag
import airflow.sdk
import sqlite3

warnings.simplefilter("error")
used = []
def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "sqlite3.connect", "subprocess.Popen"):
        used.append(event)
sys.addaudithook(audit)

def facts_of(dag):
    arguments, schedule = dag.default_args, dag.schedule
    return {
        "schedule": schedule if isinstance(schedule, str) else [asset.name for asset in schedule],
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "tasks": sorted(dag.task_dict),
        "params": dict(dag.params),
        "run_timeout": dag.dagrun_timeout.total_seconds(),
        "retries": arguments["retries"],
        "delay": arguments["retry_delay"].total_seconds(),
        "longest_delay": arguments["max_retry_delay"].total_seconds(),
        "timeout": arguments["execution_timeout"].total_seconds(),
        "templated": sorted({f for t in dag.task_dict.values() for f in t.template_fields}),
    }

parsed = []
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    for name in [name for name in sys.modules if name.startswith("tap_balance")]:
        del sys.modules[name]
    began = time.process_time()  # what a busy machine does not change
    bag = DagBag(folder)
    took = time.process_time() - began
    dags = {name: facts_of(dag) for name, dag in bag.dags.items()}
    errors = [text.splitlines()[-1] for text in bag.import_errors.values()]
    parsed.append({"errors": errors, "took": took, "used": list(used), "dags": dags})
sqlite3.connect(":memory:").close()
print(json.dumps({"parsed": parsed, "heard": used}))
"""


def parse(home: Path, *edits: dict[str, str]) -> list[dict[str, Any]]:
    """Let Airflow's Python parse copies of the DAG folder with such edits, all warnings errors."""
    folders = [home / f"copy-{number}" for number, _ in enumerate(edits)]
    for folder, constants in zip(folders, edits, strict=True):
        copy_dags(folder, constants)
    # Nothing of this repository is in reach but the folder: no Meltano, no tap.
    done = subprocess.run(
        [PYTHON, "-c", PARSE, *folders],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        env={"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["heard"] == ["sqlite3.connect"]  # the hook hears what it listens for
    parsed: list[dict[str, Any]] = answer["parsed"]
    return parsed


def test_the_dags_parse_within_a_second_without_meltano_network_or_database(
    airflow_folder: Path,
) -> None:
    [facts] = parse(airflow_folder, {})
    assert facts.pop("took") < 1
    both = {
        "catchup": False,
        "max_active_runs": 1,
        "run_timeout": 3600.0,
        "retries": 2,
        "delay": 120.0,
        "longest_delay": 600.0,
        "timeout": 900.0,
        # Of the decorated tasks, none of which takes an argument with a secret in it.
        "templated": ["op_args", "op_kwargs", "templates_dict"],
    }
    assert facts == {
        "errors": [],
        "used": [],
        "dags": {
            "tap_balance": {
                "schedule": "0 */1 * * *",
                "tasks": ["check", "load", "plan", "publish"],
                "params": {"shards": 1},
                **both,
            },
            "tap_balance_runway": {
                "schedule": ["tap_balance"],
                "tasks": ["alerts", "build"],
                "params": {},
                **both,
            },
        },
    }


def test_minutes_that_no_schedule_has_are_an_import_error(airflow_folder: Path) -> None:
    for facts in parse(airflow_folder, {"MINUTES": "45"}, {"MINUTES": "0"}, {"MINUTES": "420"}):
        assert set(facts["dags"]) == {"tap_balance_runway"}
        [error] = facts["errors"]
        assert error == (
            "ValueError: MINUTES: must divide 60, or be whole hours that divide a day, such as 15, "
            "60 or 1440"
        )


def call(airflow: Airflow, *calls: tuple[str, list[Any]]) -> list[dict[str, Any]]:
    """Call functions of the helper module in Airflow's own Python."""
    done = subprocess.run(
        [PYTHON, ROOT / "tests" / "support" / "dag_calls.py"],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=False,
        env=airflow.environment,
    )
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


def test_the_schedule_and_the_interval_agree_and_the_interval_is_the_taps(
    airflow_folder: Path,
) -> None:
    schedules = {
        1: "*/1 * * * *",
        15: "*/15 * * * *",
        60: "0 */1 * * *",
        180: "0 */3 * * *",
        1440: "0 0 * * *",
    }
    moments = [
        pendulum.datetime(2026, 1, 31),
        pendulum.datetime(2026, 1, 31, 10, 59, 59),
        pendulum.datetime(2026, 3, 29, 1, 7, 30),
    ]
    cases = [(minutes, moment) for minutes in schedules for moment in moments]
    airflow = Airflow(airflow_folder, {"TAP_BALANCE_ACCOUNTS": ACCOUNTS}, {}, {})
    outcomes = call(
        airflow,
        *(("cron", [minutes]) for minutes in schedules),
        *(("shapes", [moment.float_timestamp, minutes, 3]) for minutes, moment in cases),
    )
    results = [outcome["result"] for outcome in outcomes]
    assert results[: len(schedules)] == list(schedules.values())
    for (minutes, moment), shapes in zip(cases, results[len(schedules) :], strict=True):
        assert [shape["shard"] for shape in shapes] == ["1/3", "2/3", "3/3"]
        for shape in shapes:
            interval = parse_interval(shape["interval"])
            assert interval == minutes * 60
            assert shape["snapshot_at"] == snapshot_of(moment, interval).timestamp
            assert shape["accounts"] == 3
    assert SECRET not in json.dumps(results)


def file_of(folder: Path, name: str, text: str) -> dict[str, str]:
    (folder / name).write_text(text)
    return {"TAP_BALANCE_ACCOUNTS_FILE": str(folder / name)}


def test_a_worker_whose_accounts_differ_from_the_plan_says_so_and_names_itself(
    airflow_folder: Path, tmp_path: Path
) -> None:
    lines = "\n".join(map(json.dumps, ACCOUNTS)) + "\n"
    same = [
        file_of(tmp_path, "lines.jsonl", lines),
        file_of(tmp_path, "reversed.jsonl", "\n".join(map(json.dumps, reversed(ACCOUNTS)))),
        file_of(tmp_path, "array.json", "\ufeff" + json.dumps(ACCOUNTS)),
        {"TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS)},
        {"TAP_BALANCE_ACCOUNTS": json.dumps([a | {"dev_secret": "rotated"} for a in ACCOUNTS])},
    ]
    other = [
        {"TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS[:2])},
        {"TAP_BALANCE_ACCOUNTS": json.dumps([*ACCOUNTS[:2], ACCOUNTS[2] | {"account": "other"}])},
        {"TAP_BALANCE_ACCOUNTS": json.dumps([*ACCOUNTS[:2], ACCOUNTS[2] | {"product": "otp"}])},
        {"TAP_BALANCE_ACCOUNTS": json.dumps([*ACCOUNTS[:2], ACCOUNTS[2] | {"enabled": False}])},
        {"TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS), "TAP_BALANCE_PRODUCT": "otp"},
    ]
    airflow = Airflow(airflow_folder, {"TAP_BALANCE_ACCOUNTS": ACCOUNTS}, {}, {})
    [planned] = call(airflow, ("shapes", [0, 60, 1]))
    [shape] = planned["result"]
    outcomes = call(airflow, *(("verified_accounts", [shape, env]) for env in [*same, *other]))
    for outcome in outcomes[: len(same)]:
        assert sorted(outcome["result"]) == sorted(entry["account"] for entry in ACCOUNTS)
    errors = [outcome["error"] for outcome in outcomes[len(same) :]]
    for error in errors:
        assert error.startswith("AirflowFailException: ")
        assert "has other accounts than the plan of this run: " in error
    assert ": 2 (" in errors[0]
    assert f"planned 3 ({shape['fingerprint']})" in errors[0]


def test_an_account_that_is_switched_off_is_in_the_plan_but_needs_no_row(
    airflow_folder: Path,
) -> None:
    accounts = [*ACCOUNTS[:2], ACCOUNTS[2] | {"enabled": False}]
    airflow = Airflow(airflow_folder, {"TAP_BALANCE_ACCOUNTS": accounts}, {}, {})
    [planned] = call(airflow, ("shapes", [0, 60, 1]))
    [shape] = planned["result"]
    assert shape["accounts"] == 3
    env = {"TAP_BALANCE_ACCOUNTS": json.dumps(accounts)}
    [outcome] = call(airflow, ("verified_accounts", [shape, env]))
    assert outcome["result"] == [entry["account"] for entry in ACCOUNTS[:2]]


def test_accounts_that_cannot_be_read_are_an_error_that_names_the_variable(
    airflow_folder: Path,
) -> None:
    project = str(airflow_folder)
    outcomes = call(
        Airflow(airflow_folder, {}, {}, {}),
        ("read_accounts", [{"TAP_BALANCE_DEV_KEY": "key", "TAP_BALANCE_ACCOUNT": "main"}, project]),
        ("read_accounts", [{"TAP_BALANCE_DEV_KEY": "key"}, project]),
        ("read_accounts", [{}, project]),
        ("read_accounts", [{"TAP_BALANCE_ACCOUNTS": "[]"}, project]),
        ("read_accounts", [{"TAP_BALANCE_ACCOUNTS": f'["{SECRET}"]'}, project]),
        ("read_accounts", [{"TAP_BALANCE_ACCOUNTS": f'{{"{SECRET}"'}, project]),
        ("read_accounts", [{"TAP_BALANCE_ACCOUNTS_FILE": "nowhere"}, project]),
    )
    names = [[entry["account"] for entry in outcome["result"]] for outcome in outcomes[:2]]
    assert names == [["main"], ["default"]]
    *lists, unreadable = [outcome["error"] for outcome in outcomes[2:]]
    for error in lists:
        assert error == (
            "AirflowFailException: TAP_BALANCE_ACCOUNTS: not a list of accounts; "
            "`tap-balance --test` reports what is wrong with it"
        )
    assert unreadable.startswith(
        "AirflowException: TAP_BALANCE_ACCOUNTS_FILE: cannot be read on "
    )  # another worker may have it
    assert unreadable.endswith("(No such file or directory)")


def test_a_wrong_connection_is_one_line_without_its_values(airflow_folder: Path) -> None:
    wrong = ["", "{}", f'["{SECRET}"]', f'{{"dev_secret": "{SECRET}"}}', SECRET]
    outcomes = call(
        Airflow(airflow_folder, {}, {}, {}),
        *(("environment", [json.dumps({"conn_type": "generic", "extra": e})]) for e in wrong),
    )
    for outcome in outcomes:
        assert outcome["error"] == (
            "AirflowFailException: the connection 'tap_balance' must exist, and its extra must be "
            "a JSON object with environment variables for Meltano, such as "
            "TAP_BALANCE_ACCOUNTS_FILE; see .env.example"
        )


def test_the_secrets_in_the_environment_are_found(airflow_folder: Path) -> None:
    variables = {
        "TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS[:1]),
        "TAP_BALANCE_CURRENCY": "USD",
        "TARGET_POSTGRES_SQLALCHEMY_URL": "postgresql+psycopg://loader:p%40ss%2Fword@host/database",
        "TARGET_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "pass phrase",
        "TARGET_SNOWFLAKE_USER": "loader",
        "USE_TOKEN": "1",
        "SOMETHING": "http://[",
    }
    found, malformed, lines = call(
        Airflow(airflow_folder, {}, {}, {}),
        ("secrets_of", [variables]),
        ("secrets_of", [{"TAP_BALANCE_ACCOUNTS": f'[{{"dev_secret": "{SECRET}"'}]),
        ("secrets_of", [{"X_PRIVATE_KEY": "first line\nsecond", "TOKENIZERS": "false"}]),
    )
    assert sorted(found["result"]) == sorted(["p%40ss%2Fword", SECRET, "pass phrase", "p@ss/word"])
    assert malformed["result"] == [SECRET]
    assert lines["result"] == ["first line", "second"]


def test_an_exception_has_the_lines_of_the_cause_and_no_retry_cures_a_permission(
    airflow_folder: Path,
) -> None:
    key = "account 'shop': HTTP 401, code 2002: the key has expired"
    busy = "account 'shop': HTTP 503: try again"
    many = [f"account '{number}': HTTP 403" for number in range(25)]
    outcomes = call(
        Airflow(airflow_folder, {}, {}, {}),
        ("fail", ["shard 1/1", [key]]),
        ("fail", ["shard 1/1", [key, busy]]),
        ("fail", ["shard 1/1", many]),
        ("fail", ["build", ["Database Error: permission denied for schema marts"]]),
    )
    host = socket.gethostname()
    permission, mixed, cut, database = [outcome["error"] for outcome in outcomes]
    assert permission == f"AirflowFailException: shard 1/1 on {host}: {key}"
    assert mixed == f"AirflowException: shard 1/1 on {host}: {key}; {busy}"
    assert cut.endswith("; account '19': HTTP 403; and 5 more")
    assert database == (
        f"AirflowFailException: build on {host}: Database Error: permission denied for schema marts"
    )


def test_the_errors_of_tap_target_and_dbt_are_picked_out_of_meltanos_lines(
    airflow_folder: Path,
) -> None:
    def line(event: str, **more: object) -> str:
        return json.dumps({"event": event, "level": "info", **more})

    tap, target, dbt = {"producer": True}, {"consumer": True}, {"cmd_type": "command"}
    outcomes = call(
        Airflow(airflow_folder, {}, {}, {}),
        (
            "errors",
            [
                line("account 'shop': HTTP 401", level="error", **tap),
                line("METRIC", **tap),
                line("Traceback (most recent call last):", **target),
                line('  File "psycopg/connection.py", line 126, in connect', **target),
                line("psycopg.OperationalError: connection failed", **target),
                line("sqlalchemy.exc.OperationalError: (psycopg.OperationalError)", **target),
            ],
        ),
        (
            "errors",
            [
                line("03:47:05  Concurrency: 2 threads (target='postgres')", **dbt),
                line("03:47:05  Encountered an error:", **dbt),
                line("Database Error", **dbt),
                line("", **dbt),
                line('  connection to server on socket "/nowhere" failed', **dbt),
                line("  Is the server running locally?", **dbt),
            ],
        ),
        ("errors", ["not JSON", "[1]", "{", line("fine")]),
    )
    assert [outcome["result"] for outcome in outcomes] == [
        [["account 'shop': HTTP 401"], ["psycopg.OperationalError: connection failed"]],
        [[], ["Database Error", 'connection to server on socket "/nowhere" failed']],
        [[], []],
    ]
