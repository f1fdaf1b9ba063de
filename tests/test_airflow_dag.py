"""The DAGs' files in Airflow's own Python: how they parse, and what their functions decide."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pendulum
import psycopg
import pytest
from airflow_home import Airflow, copy_dags
from deployment import ACCOUNTS, PYTHON, account
from pages import doc
from parts import ROOT

from tap_balance.sandbox import SECRET
from tap_balance.snapshots import parse_interval, start_of_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import embedded

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

HOST = socket.gethostname()


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


@pytest.fixture(scope="module")
def call(airflow_database: Path) -> Iterator[Callable[..., Any]]:
    """Call functions of the helper module in Airflow's own Python; an exception is its text."""
    airflow = Airflow(airflow_database.parent, {}, {}, {})
    airflow.environment |= {"MELTANO_ENVIRONMENT": "dev", "DBT_TARGET_PATH": "of-the-worker"}
    with subprocess.Popen(
        [PYTHON, ROOT / "tests" / "support" / "dag_calls.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=airflow.environment,
    ) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def call(function: str, *arguments: object) -> Any:  # noqa: ANN401
            print(json.dumps([function, *arguments]), file=stdin)
            return json.loads(stdout.readline())

        yield call
        stdin.close()


@pytest.mark.parametrize(
    ("minutes", "schedule"),
    [
        (1, "*/1 * * * *"),
        (15, "*/15 * * * *"),
        (60, "0 */1 * * *"),
        (180, "0 */3 * * *"),
        (1440, "0 0 * * *"),
    ],
)
def test_the_schedule_is_that_of_the_intervals(
    call: Callable[..., Any], minutes: int, schedule: str
) -> None:
    assert call("cron", minutes) == schedule


@pytest.mark.parametrize(
    ("minutes", "moment"),
    [
        (1, pendulum.datetime(2026, 3, 29, 1, 7, 30)),
        (15, pendulum.datetime(2026, 1, 31, 10, 59, 59)),
        (60, pendulum.datetime(2026, 1, 31)),
        (180, pendulum.datetime(2026, 3, 29, 1, 7, 30)),
        (1440, pendulum.datetime(2026, 1, 31, 10, 59, 59)),
    ],
)
def test_the_interval_of_a_run_is_the_taps_at_its_begin(
    call: Callable[..., Any], minutes: int, moment: pendulum.DateTime
) -> None:
    assert call("connect", {"TAP_BALANCE_ACCOUNTS": ACCOUNTS}) == "connected"
    shapes = call("plan", moment.float_timestamp, minutes, 3)
    assert [shape.pop("TAP_BALANCE_SHARD") for shape in shapes] == ["1/3", "2/3", "3/3"]
    assert shapes == [shapes[0]] * 3
    interval = parse_interval(shapes[0]["TAP_BALANCE_SNAPSHOT_INTERVAL"])
    assert interval == minutes * 60
    snapshot_at = shapes[0]["TAP_BALANCE_SNAPSHOT_AT"]
    assert snapshot_at == start_of_interval(moment, interval)
    assert re.fullmatch(r"3 \([0-9a-f]{16}\)", shapes[0]["PLANNED_ACCOUNTS"])


def file_of(folder: Path, text: str) -> dict[str, str]:
    path = folder / f"{len(list(folder.iterdir()))}"
    path.write_text(text)
    return {"TAP_BALANCE_ACCOUNTS_FILE": str(path)}


def test_a_worker_whose_accounts_differ_from_the_plan_names_itself(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    off: list[dict[str, Any]] = [*ACCOUNTS[:2], {**ACCOUNTS[2], "enabled": False}]
    assert call("connect", {"TAP_BALANCE_ACCOUNTS": off}) == "connected"
    [shape] = call("plan", 0, 60, 1)
    planned = shape["PLANNED_ACCOUNTS"]
    for same in (
        file_of(tmp_path, "\n".join(map(json.dumps, off)) + "\n\n"),
        file_of(tmp_path, "\n".join(map(json.dumps, reversed(off)))),
        file_of(tmp_path, "\ufeff" + json.dumps(off)),
        {"TAP_BALANCE_ACCOUNTS": json.dumps([a | {"dev_secret": "rotated"} for a in off])},
        # An account that is switched off is no part of the run.
        {"TAP_BALANCE_ACCOUNTS": off[:2]},
    ):
        assert call("connect", same) == "connected"
        names, found = call("read_accounts", planned)
        assert sorted(names) == sorted(entry["account"] for entry in off[:2])
        assert found == planned
    for other, count in (
        ({"TAP_BALANCE_ACCOUNTS": off[:1]}, 1),
        ({"TAP_BALANCE_ACCOUNTS": ACCOUNTS}, 3),
        ({"TAP_BALANCE_ACCOUNTS": [off[0], off[1] | {"account": "other"}]}, 2),
        ({"TAP_BALANCE_ACCOUNTS": [off[0], off[1] | {"product": "otp"}]}, 2),
        ({"TAP_BALANCE_ACCOUNTS": off, "TAP_BALANCE_PRODUCT": "otp"}, 2),
    ):
        assert call("connect", other) == "connected"
        error = call("read_accounts", planned)
        start = f"AirflowFailException: {HOST} has other accounts than the plan of this run: "
        assert error.startswith(f"{start}{count} (")
        assert error.endswith(f", planned {planned}")
    for task, argument in (("execute", shape), ("check", [shape])):
        assert call(task, argument) == error


AT = f"the accounts on {HOST}: tap_balance.errors.SettingsError: "


@pytest.mark.parametrize(
    ("variables", "names"),
    [({"TAP_BALANCE_ACCOUNT": "main"}, ["main"]), ({}, ["default"])],
    ids=["named", "without a name"],
)
def test_the_tap_reads_the_accounts(
    call: Callable[..., Any], variables: dict[str, Any], names: list[str]
) -> None:
    pair = {"TAP_BALANCE_DEV_KEY": "key", "TAP_BALANCE_DEV_SECRET": SECRET}
    assert call("connect", pair | variables) == "connected"
    assert call("read_accounts")[0] == names


@pytest.mark.parametrize(
    ("variables", "kind", "reason"),
    [
        ({"NONE": ""}, "AirflowFailException", "dev_key, dev_secret: not set"),
        ({"TAP_BALANCE_ACCOUNTS": [SECRET]}, "AirflowFailException", "accounts"),
        ({"TAP_BALANCE_ACCOUNTS": f'{{"{SECRET}"'}, "AirflowFailException", "accounts"),
        # With a retry: another worker may have it.
        ({"TAP_BALANCE_ACCOUNTS_FILE": "nowhere"}, "AirflowException", "accounts_file: cannot be "),
    ],
    ids=["none", "no list of accounts", "not JSON", "a missing file"],
)
def test_what_the_tap_says_is_wrong_with_the_accounts_is_the_exception(
    call: Callable[..., Any], variables: dict[str, Any], kind: str, reason: str
) -> None:
    assert call("connect", variables) == "connected"
    message = call("read_accounts")
    assert message.startswith(f"{kind}: {AT}{reason}")
    assert SECRET not in message


@pytest.mark.parametrize("extra", ["", {}, [SECRET], {"dev_secret": SECRET}, SECRET], ids=str)
def test_a_wrong_connection_is_one_line_without_its_values(
    call: Callable[..., Any], extra: object
) -> None:
    assert call("connect", extra) == (
        "AirflowFailException: connection 'tap_balance': its extra must be a JSON object of "
        "environment variables"
    )


def test_check_names_each_row_that_was_lost_and_publish_is_skipped_where_none_can_be_read(
    call: Callable[..., Any], postgres: embedded.Postgres
) -> None:
    lost = [account(name, "example") for name in ("lost", "never loaded")]
    assert call("connect", {"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, *lost]}) == "connected"
    [shape] = call("plan", 3600, 60, 1)
    snapshot_at = shape["TAP_BALANCE_SNAPSHOT_AT"]
    assert snapshot_at == "1970-01-01T01:00:00Z"
    postgres = postgres.create_database("checked")
    connection = {"conn_type": "postgres", "host": postgres.socket_folder, "login": "postgres"}
    call("connect_destination", {**connection, "schema": "checked"})
    at = f"AirflowException: connection 'tap_balance_destination' on {HOST}: "
    assert call("check", [shape]).startswith(f'{at}UndefinedTable: relation "tap_balance.balance"')
    assert call("publish").startswith("AirflowSkipException: connection 'tap_balance_destination'")
    with psycopg.connect(postgres.uri) as database:
        database.execute("CREATE SCHEMA tap_balance")
        database.execute(
            "CREATE TABLE tap_balance.balance (snapshot_id text PRIMARY KEY, snapshot_at timestamp)"
        )
        add = "INSERT INTO tap_balance.balance VALUES (%s || '@' || %s, %s)"
        for entry in ACCOUNTS:
            database.execute(add, (entry["account"], snapshot_at, "1970-01-01 01:00"))
        database.execute(add, ("lost", "1970-01-01T00:00:00Z", "1970-01-01 00:00"))
    assert call("publish") is None
    assert call("check", [shape]) == (  # no retry brings them back
        "AirflowFailException: 2 of 5 rows are missing: lost@1970-01-01T01:00:00Z; "
        "never loaded@1970-01-01T01:00:00Z"
    )
    assert call("check", [shape | {"TAP_BALANCE_SNAPSHOT_AT": "1970-01-01T00:00:00Z"}]).startswith(
        "AirflowFailException: 4 of 5 rows are missing: "
    )
    with psycopg.connect(postgres.uri) as database:
        for name in ("lost", "never loaded"):
            database.execute(add, (name, snapshot_at, "1970-01-01 01:00"))
    assert call("check", [shape]) is None


def test_what_is_not_found_is_retried_as_the_secrets_backend_may_be_down(
    call: Callable[..., Any],
) -> None:
    assert call("disconnect") == (
        "AirflowNotFoundException: The conn_id `tap_balance` isn't defined"
    )


def test_the_connection_wins_over_the_tasks_own_variables_and_they_over_the_workers(
    call: Callable[..., Any],
) -> None:
    assert call("connect", {"TAP_BALANCE_ACCOUNTS": ACCOUNTS}) == "connected"
    read = call("read_environment")
    assert (read["MELTANO_ENVIRONMENT"], read["DBT_TARGET_PATH"]) == ("prod", "")
    assert call("connect", {"MELTANO_ENVIRONMENT": "staging"}) == "connected"
    assert call("read_environment")["MELTANO_ENVIRONMENT"] == "staging"


def test_a_lost_worker_and_a_failed_task_are_messages_without_a_webhooks_url(
    call: Callable[..., Any],
) -> None:
    """The DAG processor calls for a lost worker, and has no exception."""
    lost = "tap_balance.load: its worker was lost; see the log"
    assert call("notify_failure_of", None, [None, None]) == [lost, lost]
    error = "url: /services/T0/B0/token at https://hooks.example.com/?token=abc: 404"
    assert call("notify_failure_of", "HTTP 401", [error, None]) == ["tap_balance.load: HTTP 401"]
    text = f"notifier Notifier on {HOST}: OSError: url: ... at ... 404"
    assert call("notify_failure_of", "HTTP 401", [error]) == f"AirflowException: {text}"


def test_the_secrets_of_the_connection_are_masked(call: Callable[..., Any]) -> None:
    variables = {
        "TAP_BALANCE_ACCOUNTS": [{"account": "shop", "dev_secret": "of an account"}],
        "TAP_BALANCE_CURRENCY": "USD",
        "TARGET_POSTGRES_SQLALCHEMY_URL": "postgresql+psycopg://loader:p%40ss%2Fword@host/database",
        "TARGET_SNOWFLAKE_PRIVATE_KEY": "first line\nsecond",
        "TARGET_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "pass phrase",
        "TARGET_SNOWFLAKE_USER": "loader",
        "SOMETHING": "http://[",
    }
    shown = ["shop", "USD", "loader", "host/database", "http://["]
    secrets = ["p%40ss%2Fword", "p@ss/word", "first line", "second", "pass phrase", "of an account"]
    assert call("redact", secrets) == secrets
    assert call("connect", variables) == "connected"
    assert call("redact", [*shown, *secrets]) == [*shown, *["***"] * len(secrets)]
    malformed = {"TAP_BALANCE_ACCOUNTS": '[{"dev_secret": "malformed"'}
    assert call("connect", malformed) == "connected"
    assert call("redact", "malformed") == "***"


def test_an_exception_has_the_lines_of_the_cause_and_no_retry_cures_a_permission(
    call: Callable[..., Any],
) -> None:
    key = "account 'shop': HTTP 401, code 2002: the key has expired"
    busy = "account 'shop': HTTP 503: try again"
    denied = "Database Error: permission denied for schema marts"
    many = [f"account '{number}': HTTP 403" for number in range(25)]
    assert call("fail", "shard 1/1", [key]) == f"AirflowFailException: shard 1/1 on {HOST}: {key}"
    both = call("fail", "shard 1/1", [key, busy])
    assert both == f"AirflowException: shard 1/1 on {HOST}: {key}; {busy}"
    assert call("fail", "dbt", [denied]) == f"AirflowFailException: dbt on {HOST}: {denied}"
    assert call("fail", "shard 1/1", many).endswith("; account '19': HTTP 403; and 5 more")


def line(event: str, level: str = "info", **more: object) -> str:
    return json.dumps({"event": event, "level": level, **more})


def plugin(event: str, level: str = "info") -> str:
    return line(event, level, stdio="stderr")


def dbt(message: str, level: str) -> str:
    return plugin(json.dumps({"info": {"level": level, "msg": message}}))


def test_a_secret_in_a_line_of_a_plugin_is_masked_before_it_is_logged(
    call: Callable[..., Any],
) -> None:
    """LocalExecutor copies a task's log to its own stdout, and Airflow does not mask that."""
    assert call("connect", {"TAP_BALANCE_ACCOUNTS": [account("shop", "x")]}) == "connected"
    outcome = call("causes", plugin(f"account '{SECRET}': HTTP 503", "error"))
    assert outcome == f"AirflowException: build on {HOST}: account '***': HTTP 503"


@pytest.mark.parametrize(
    ("lines", "causes"),
    [
        (
            [
                plugin("account 'shop': HTTP 401", "error"),
                plugin("METRIC"),
                plugin(
                    "cannot write to stdout (Broken pipe); the target has probably ended", "error"
                ),
                plugin("(psycopg.OperationalError) connection\n\tfailed", "error"),
                line("Loader failed", "error"),
            ],
            "account 'shop': HTTP 401; (psycopg.OperationalError) connection failed",
        ),
        ([dbt("12 models", "info"), dbt("Database Error\n  no", "error")], "Database Error no"),
        (["[1]", "{", line("Loader failed", "error"), line("Block", "error")], "Loader failed"),
        (["sh: 1: exec: meltano: not found"], "sh: 1: exec: meltano: not found"),
        (["Error: `meltano run` must"], "Error: `meltano run` must"),
        (
            [line("fine"), plugin("5")],
            "Bash command failed. The command returned a non-zero exit code 1.",
        ),
    ],
    ids=["tap and target", "dbt", "Meltano", "the shell", "its command line", "nobody"],
)
def test_the_causes_are_picked_out_of_meltanos_lines(
    call: Callable[..., Any], lines: list[str], causes: str
) -> None:
    assert call("connect", {"TAP_BALANCE_ACCOUNTS": ACCOUNTS}) == "connected"
    assert call("causes", *lines) == f"AirflowException: build on {HOST}: {causes}"


def test_the_files_of_the_page_are_imported_as_the_tasks_read_them(
    airflow_folder: Path, tmp_path: Path
) -> None:
    airflow = Airflow(airflow_folder, {}, {}, {})
    del airflow.environment["AIRFLOW_CONN_TAP_BALANCE"]
    texts = [text for language, text in doc("airflow").blocks if language in {"json", "bash"}]
    [connections, commands] = texts
    (tmp_path / "connections.json").write_text(connections)
    read = (
        "import json; from airflow.models import Connection; "
        "extra = Connection.get_connection_from_secrets('tap_balance').extra_dejson; "
        "print(json.dumps(extra))"
    )
    for command in (["sh", "-ec", commands], [str(PYTHON), "-c", read]):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=airflow.environment | {"PATH": f"{PYTHON.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    extra = json.loads(connections)["tap_balance"]["extra"]
    assert json.loads(done.stdout.splitlines()[-1]) == extra
