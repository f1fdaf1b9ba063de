"""The DAG's file in Airflow's own Python: how it parses, and what its functions say."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow_home import Airflow
from deployment import ACCOUNTS, DAG_FOLDER, PYTHON
from parts import ROOT

from tap_balance.sandbox import SECRET
from tap_balance.snapshots import parse_interval, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]


PARSE = """
import json, os, sys, time, warnings
from airflow.dag_processing.dagbag import DagBag
import airflow.sdk
import sqlite3

warnings.simplefilter("error")
used = []
def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "sqlite3.connect", "subprocess.Popen"):
        used.append(event)
sys.addaudithook(audit)

def facts_of(bag, took):
    facts = {"errors": list(bag.import_errors.values()), "took": took, "used": list(used)}
    if dag := bag.dags.get("tap_balance"):
        load = dag.task_dict["load"].partial_kwargs
        facts |= {
            "schedule": dag.schedule,
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "documented": "cannot be back-filled" in dag.doc_md,
            "tasks": sorted(dag.task_dict),
            "shards": dag.params["shards"],
            "retries": load["retries"],
            "backoff": load["retry_exponential_backoff"],
            "delay": load["retry_delay"].total_seconds(),
            "longest_delay": load["max_retry_delay"].total_seconds(),
            "timeout": load["execution_timeout"].total_seconds(),
            "check_timeout": dag.task_dict["check_freshness"].execution_timeout.total_seconds(),
            "run_timeout": dag.dagrun_timeout.total_seconds(),
            "templated": list(dag.task_dict["load"].template_fields),
        }
    return facts

parsed = []
for variables in json.loads(sys.argv[2]):
    os.environ.update(variables)
    began = time.process_time()  # what a busy machine does not change
    bag = DagBag(sys.argv[1])
    parsed.append(facts_of(bag, time.process_time() - began))
    for name in variables:
        del os.environ[name]
sqlite3.connect(":memory:").close()
print(json.dumps({"parsed": parsed, "heard": used}))
"""


def parse(home: Path, *environments: Mapping[str, str]) -> list[dict[str, Any]]:
    """Let Airflow's Python parse the DAG folder in each environment, all warnings errors."""
    # Nothing of this repository is in reach but the file: no Meltano, no tap.
    done = subprocess.run(
        [PYTHON, "-c", PARSE, DAG_FOLDER, json.dumps(environments)],
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


def test_the_dag_parses_at_once_without_meltano_network_or_database(airflow_folder: Path) -> None:
    [facts] = parse(airflow_folder, {})
    assert facts.pop("took") < 0.5
    assert facts == {
        "errors": [],
        "used": [],
        "schedule": "0 */1 * * *",
        "catchup": False,
        "max_active_runs": 1,
        "documented": True,
        "tasks": ["alert", "build", "check_freshness", "load", "shards"],
        "shards": 1,
        "retries": 2,
        "backoff": 2.0,
        "delay": 120.0,
        "longest_delay": 600.0,
        "timeout": 900.0,
        "check_timeout": 900.0,
        "run_timeout": 3600.0,
        "templated": [],
    }


def test_a_wrong_constant_is_an_import_error_that_names_it(airflow_folder: Path) -> None:
    wrong = {
        ("MINUTES", "45"): "must divide 60, or be whole hours that divide a day, such as 15, 60",
        ("MINUTES", "hourly"): "must be a whole number from 1 to 1440",
        ("SHARDS", "0"): "must be a whole number from 1 to 1024",
        ("RETRIES", "-1"): "must be a whole number from 0 to 100",
        ("RETRY_SECONDS", ""): "must be a whole number from 1 to 3600",
    }
    environments = [{f"TAP_BALANCE_DAG_{name}": value} for name, value in wrong]
    for facts, ((name, _), error) in zip(
        parse(airflow_folder, *environments), wrong.items(), strict=True
    ):
        [message] = facts["errors"]
        last = message.splitlines()[-1]
        assert last.startswith(f"ValueError: TAP_BALANCE_DAG_{name}: {error}"), last


INTERVALS = """
import json, os, sys
from datetime import datetime, timezone

answers = []
for minutes in json.loads(sys.argv[2]):
    os.environ["TAP_BALANCE_DAG_MINUTES"] = str(minutes)
    dag = {"__name__": "dag"}
    exec(open(sys.argv[1] + "/tap_balance.py").read(), dag)
    moments = [datetime.fromtimestamp(s, tz=timezone.utc) for s in json.loads(sys.argv[3])]
    answers.append([dag["environment"]({}, "2/3"), *map(dag["interval_start"], moments)])
print(json.dumps(answers))
"""


def test_schedule_and_interval_are_one_and_the_interval_is_the_taps(airflow_folder: Path) -> None:
    schedules = {
        1: "*/1 * * * *",
        15: "*/15 * * * *",
        60: "0 */1 * * *",
        180: "0 */3 * * *",
        1440: "0 0 * * *",
    }
    parsed = parse(
        airflow_folder, *({"TAP_BALANCE_DAG_MINUTES": str(minutes)} for minutes in schedules)
    )
    assert [facts["schedule"] for facts in parsed] == list(schedules.values())

    moments = [
        pendulum.datetime(2026, 1, 31),
        pendulum.datetime(2026, 1, 31, 10, 59, 59),
        pendulum.datetime(2026, 3, 29, 1, 7, 30),
    ]
    seconds = [moment.int_timestamp for moment in moments]
    done = subprocess.run(
        [PYTHON, "-c", INTERVALS, DAG_FOLDER, json.dumps(list(schedules)), json.dumps(seconds)],
        capture_output=True,
        text=True,
        check=True,
        env=Airflow(airflow_folder, {}, {}, {}).environment,
    )
    answers = json.loads(done.stdout.splitlines()[-1])
    for minutes, (environment, *starts) in zip(schedules, answers, strict=True):
        interval = parse_interval(environment["TAP_BALANCE_SNAPSHOT_INTERVAL"])
        assert interval == minutes * 60
        assert starts == [snapshot_of(moment, interval).timestamp for moment in moments]
        assert environment["TAP_BALANCE_SHARD"] == "2/3"
        assert environment["MELTANO_ENVIRONMENT"] == "prod"
        assert environment["DBT_SNAPSHOT_INTERVAL_SECONDS"] == str(minutes * 60)
        assert [name for name in environment if "AIRFLOW" in name] == []


def call(airflow: Airflow, *calls: tuple[str, list[Any]]) -> list[dict[str, Any]]:
    """Call functions of the DAG's file in Airflow's own Python."""
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


def test_what_the_check_cannot_know_is_an_error_that_says_what_to_do(
    deployment: Deployment, tmp_path: Path
) -> None:
    lines = tmp_path / "accounts.jsonl"
    lines.write_text("\n".join(map(json.dumps, ACCOUNTS)) + "\n")
    array = tmp_path / "accounts.json"
    array.write_text("\ufeff" + json.dumps(ACCOUNTS))
    names = [entry["account"] for entry in ACCOUNTS]
    outcomes = call(
        deployment.airflow({}),
        ("account_names", [{"TAP_BALANCE_ACCOUNTS_FILE": str(lines)}]),
        ("account_names", [{"TAP_BALANCE_ACCOUNTS_FILE": str(array)}]),
        ("account_names", [{"TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS)}]),
        ("account_names", [{"TAP_BALANCE_DEV_KEY": "key", "TAP_BALANCE_ACCOUNT": "main"}]),
        ("account_names", [{"TAP_BALANCE_DEV_KEY": "key"}]),
        ("account_names", [{}]),
        ("account_names", [{"TAP_BALANCE_ACCOUNTS": "[]"}]),
        ("account_names", [{"TAP_BALANCE_ACCOUNTS": f'["{SECRET}"]'}]),
        ("account_names", [{"TAP_BALANCE_ACCOUNTS_FILE": "/nowhere"}]),
        ("accounts_since", ["2026-01-31T10:00:00Z"]),
        ("connection", ["tap_balance_other"]),
    )
    assert [outcome.get("result") for outcome in outcomes[:5]] == [
        names,
        names,
        names,
        ["main"],
        ["default"],
    ]
    errors = [outcome["error"] for outcome in outcomes[5:]]
    none, empty, malformed, unreadable, table, connection = errors
    assert none.startswith("AirflowFailException: no account to check: put TAP_BALANCE_ACCOUNTS")
    assert empty == none
    assert malformed == (
        "AirflowFailException: TAP_BALANCE_ACCOUNTS: is no list of accounts; `tap-balance --test` "
        "says where it is wrong"
    )
    assert unreadable.endswith(
        "TAP_BALANCE_ACCOUNTS_FILE: cannot be read on this worker (No such file or directory)"
    )
    assert table.startswith("AirflowException: cannot read tap_balance.balance over the connection")
    assert 'relation "tap_balance.balance" does not exist' in table
    assert "has a load ever succeeded" in table
    assert connection.startswith(
        "AirflowFailException: there is no Airflow connection 'tap_balance_other'; add it"
    )
    assert [error for error in errors if "\n" in error or SECRET in error] == []


def test_a_wrong_connection_is_one_line_without_its_values(airflow_folder: Path) -> None:
    no_object = "must be a JSON object with the environment for Meltano; see .env.example"
    wrong = {
        "": no_object,
        "{}": no_object,
        f'["{SECRET}"]': no_object,
        f'{{"dev_secret": "{SECRET}"}}': "'dev_secret' is no environment variable; write the",
    }
    outcomes = call(
        Airflow(airflow_folder, {}, {}, {}),
        *(("settings_from", [json.dumps({"conn_type": "generic", "extra": e})]) for e in wrong),
    )
    for outcome, error in zip(outcomes, wrong.values(), strict=True):
        assert error in outcome["error"]
        assert outcome["error"].startswith(
            "AirflowFailException: the extra of the connection 'tap_balance'"
        )
        assert "\n" not in outcome["error"]
        assert SECRET not in outcome["error"]


def test_a_secret_that_meltano_would_print_is_blanked_out(airflow_folder: Path) -> None:
    variables = {
        "TAP_BALANCE_ACCOUNTS": json.dumps(ACCOUNTS[:1]),
        "TAP_BALANCE_CURRENCY": "USD",
        "TARGET_POSTGRES_SQLALCHEMY_URL": "postgresql+psycopg://loader:p%40ss%2Fword@host/database",
        "TARGET_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "pass phrase",
        "TARGET_SNOWFLAKE_USER": "loader",
        "USE_TOKEN": "1",
        "SOMETHING": "http://[",
    }
    hidden = ["p%40ss%2Fword", SECRET, "pass phrase", "p@ss/word"]
    found, malformed, partial, lines, line = call(
        Airflow(airflow_folder, {}, {}, {}),
        ("secrets_of", [variables]),
        ("secrets_of", [{"TAP_BALANCE_ACCOUNTS": f"[{SECRET}"}]),
        ("secrets_of", [{"TAP_BALANCE_ACCOUNTS": json.dumps([{}, *ACCOUNTS[:1]])}]),
        ("secrets_of", [{"X_PRIVATE_KEY": "first line\nsecond", "TOKENIZERS": "false"}]),
        ("without", [hidden, f"a {SECRET}, and postgresql://loader:p%40ss%2Fword@host"]),
    )
    assert sorted(found["result"]) == sorted(hidden)
    assert malformed["result"] == [f"[{SECRET}"]
    assert partial["result"] == [SECRET]
    assert lines["result"] == ["first line", "second"]
    assert line["result"] == "a ***, and postgresql://loader:***@host"
