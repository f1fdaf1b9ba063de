"""The DAG in a real Airflow, with the real Meltano, target and Postgres."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pendulum
import psycopg
import pytest
from airflow_home import COMMAND, Airflow
from runners import demo

from tap_balance.accounts import shard_of
from tap_balance.sandbox import SECRET, dev_key
from tap_balance.snapshots import parse_interval, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import embedded

    from tap_balance.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
PYTHON = COMMAND.parent / "python"
DAG_FOLDER = ROOT / "orchestrate" / "dags"
DATABASE_SECRET = "database-secret"
DAY = "1440"
pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]


def account(name: str, key: str) -> dict[str, str]:
    return {"account": name, "dev_key": dev_key(key), "dev_secret": SECRET}


ODD = 'it\'s "odd"\n\u5317\u4eac; DROP'
ACCOUNTS = [account("example", "example"), account(ODD, "overdrawn"), account("empty", "empty")]
FAILING = account("largest", "expired")
"""In the same shard of two as `example`; its key has expired."""


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's database, empty."""
    folder = tmp_path_factory.mktemp("migrated")
    made = Airflow(folder, {}, {}, {}).run("db", "migrate")
    assert made.returncode == 0, made.stdout
    return folder / "airflow.db"


@pytest.fixture
def home(migrated: Path, tmp_path: Path) -> Path:
    """A folder for an Airflow of its own."""
    folder = tmp_path / "airflow"
    folder.mkdir()
    shutil.copy(migrated, folder)
    return folder


class Deployment:
    """Runs the DAG with some accounts, into a database of its own."""

    def __init__(
        self, home: Path, sandbox: Sandbox, postgres: embedded.Postgres, database: str
    ) -> None:
        self.home = home
        self.sandbox_url = sandbox.url
        self._socket_folder = postgres.socket_folder
        self._database = database
        self.sqlalchemy_url = postgres.sqlalchemy_url
        self.uri = postgres.uri
        self.output = ""

    def airflow(self, settings: Mapping[str, Any], **constants: str) -> Airflow:
        folder = quote(self._socket_folder, safe="")
        return Airflow(
            self.home,
            {
                "TAP_BALANCE_BASE_URL": self.sandbox_url,
                "TAP_BALANCE_CURRENCY": "USD",
                "TARGET_POSTGRES_SQLALCHEMY_URL": f"postgresql+psycopg://postgres:{DATABASE_SECRET}"
                f"@/{self._database}?host={folder}",
                "DBT_POSTGRES_HOST": self._socket_folder,
                "DBT_POSTGRES_DBNAME": self._database,
                **settings,
            },
            {
                "conn_type": "postgres",
                "host": self._socket_folder,
                "login": "postgres",
                "password": DATABASE_SECRET,
                "schema": self._database,
            },
            {"MINUTES": DAY, "RETRIES": "0", "RETRY_SECONDS": "1", "DBT": "none", **constants},
        )

    def run(
        self,
        settings: Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        **constants: str,
    ) -> tuple[int, str, dict[str, tuple[str, int]]]:
        """Returns the status, the state of the run, and the state and tries of each task."""
        airflow = self.airflow(settings, **constants)
        done = airflow.run("dags", "test", "tap_balance", env=env)
        self.output += done.stdout
        [(run, state)] = airflow.query("SELECT run_id, state FROM dag_run ORDER BY id DESC LIMIT 1")
        return done.returncode, state, tasks_of(airflow, run)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.uri) as connection:
            return connection.execute(sql.encode()).fetchall()


def tasks_of(airflow: Airflow, run: str) -> dict[str, tuple[str, int]]:
    """State and tries of each task of a run."""
    rows = airflow.query(
        "SELECT task_id || coalesce(' ' || rendered_map_index, ''), state, try_number "
        "FROM task_instance WHERE run_id = ?",
        run,
    )
    return {task: (state, tries) for task, state, tries in rows}


@pytest.fixture
def deployment(
    home: Path,
    sandbox: Sandbox,
    postgres: embedded.Postgres,
    request: pytest.FixtureRequest,
) -> Iterator[Deployment]:
    # Two runs of one day must not fall on either side of midnight.
    left = 86_400 - time.time() % 86_400
    if left < 90:
        time.sleep(left)
    database = re.sub(r"\W", "_", request.node.name)[:60]
    made = postgres.create_database(database)
    made.psql(f"ALTER DATABASE {database} SET timezone TO 'Asia/Shanghai'")
    yield Deployment(home, sandbox, made, database)
    postgres.psql(f"DROP DATABASE {database} WITH (FORCE)")


def call(airflow: Airflow, *calls: tuple[str, list[Any]]) -> list[dict[str, Any]]:
    """Call functions of the DAG's file in Airflow's own Python."""
    done = subprocess.run(
        [PYTHON, ROOT / "tests" / "dag_calls.py"],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=False,
        env=airflow.environment,
    )
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


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


def test_the_dag_parses_at_once_without_meltano_network_or_database(home: Path) -> None:
    [facts] = parse(home, {})
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


def test_a_wrong_constant_is_an_import_error_that_names_it(home: Path) -> None:
    wrong = {
        ("MINUTES", "45"): "must divide 60, or be whole hours that divide a day, such as 15, 60",
        ("MINUTES", "hourly"): "must be a whole number from 1 to 1440",
        ("SHARDS", "0"): "must be a whole number from 1 to 1024",
        ("RETRIES", "-1"): "must be a whole number from 0 to 100",
        ("RETRY_SECONDS", ""): "must be a whole number from 1 to 3600",
    }
    environments = [{f"TAP_BALANCE_DAG_{name}": value} for name, value in wrong]
    for facts, ((name, _), error) in zip(parse(home, *environments), wrong.items(), strict=True):
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


def test_schedule_and_interval_are_one_and_the_interval_is_the_taps(home: Path) -> None:
    schedules = {
        1: "*/1 * * * *",
        15: "*/15 * * * *",
        60: "0 */1 * * *",
        180: "0 */3 * * *",
        1440: "0 0 * * *",
    }
    parsed = parse(home, *({"TAP_BALANCE_DAG_MINUTES": str(minutes)} for minutes in schedules))
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
        env=Airflow(home, {}, {}, {}).environment,
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


def test_a_shard_that_fails_twice_is_named_and_leaves_one_row_of_every_other_account(
    deployment: Deployment,
) -> None:
    assert shard_of("largest", 2) == shard_of("example", 2) == shard_of(ODD, 2) == 2
    assert shard_of("empty", 2) == 1
    settings = {"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, FAILING]}
    status, state, tasks = deployment.run(settings, SHARDS="2", RETRIES="1")
    assert (status, state) == (1, "failed"), deployment.output
    assert tasks == {
        "shards": ("success", 1),
        "load 1/2": ("success", 1),
        "load 2/2": ("failed", 2),
        "check_freshness": ("failed", 1),
    }
    midnight = datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT00:00:00Z")
    assert (
        "AirflowFailException: shard 2/2 was not loaded; 1 of 4 accounts have no snapshot since "
        f"{midnight}: 'largest'"
    ) in deployment.output
    assert "account 'largest': HTTP 401, code 2002" in deployment.output
    assert deployment.query("SELECT snapshot_id FROM tap_balance.balance ORDER BY 1") == sorted(
        (f"{entry['account']}@{midnight}",) for entry in ACCOUNTS
    )

    # Cured, and once more in the same interval; what the task starts logs all that it can. (Airflow
    # itself does so under the scheduler: `dags test` masks nothing, and logs what it shall mask.)
    cured = [*ACCOUNTS, account("largest", "largest")]
    debug = {
        "MELTANO_CLI_LOG_LEVEL": "debug",
        "TAP_BALANCE_LOGLEVEL": "DEBUG",
    }
    status, state, tasks = deployment.run({"TAP_BALANCE_ACCOUNTS": cured}, env=debug)
    assert (status, state) == (0, "success"), deployment.output
    assert "All 4 accounts have a snapshot since" in deployment.output
    rows = deployment.query("SELECT account, snapshot_id FROM tap_balance.balance ORDER BY 1")
    assert rows == sorted((e["account"], f"{e['account']}@{midnight}") for e in cured)

    for part in ("meltano", "tap-balance"):
        assert re.search(rf"\[debug +\] {part} ", deployment.output), part
    assert secrets_in(deployment.output.encode()) == []
    assert secrets_below(deployment.home) == []
    assert secrets_below(ROOT / ".meltano" / "shards") == []


def test_an_account_that_is_empty_fails_the_alert_with_its_name_and_numbers(
    deployment: Deployment,
) -> None:
    settings = {"TAP_BALANCE_ACCOUNTS": ACCOUNTS}
    status, state, tasks = deployment.run(settings, DBT="dbt-postgres")
    assert (status, state) == (1, "failed"), deployment.output
    assert tasks == {
        "shards": ("success", 1),
        "load 1/1": ("success", 1),
        "check_freshness": ("success", 1),
        "build": ("success", 1),
        "alert": ("failed", 1),
    }
    message = deployment.output.rpartition("AirflowFailException: ")[2].splitlines()[0]
    assert "account empty is empty: 0.0000 USD at " in message
    assert f"account {' '.join(ODD.split())} is empty: -0.0005 USD at " in message
    rows = deployment.query("SELECT account, status FROM tap_balance_marts.balance_runway")
    assert sorted(rows) == [("empty", "empty"), ("example", "accumulating"), (ODD, "empty")]
    assert secrets_in(deployment.output.encode()) == []
    assert secrets_below(deployment.home) == []


def secrets_in(content: bytes) -> list[str]:
    keys = ["example", "overdrawn", "empty", "largest", "expired"]
    tokens = [base64.b64encode(f"{dev_key(key)}:{SECRET}".encode()).decode() for key in keys]
    return [text for text in (SECRET, DATABASE_SECRET, *tokens) if text.encode() in content]


def secrets_below(folder: Path) -> list[str]:
    """Files with a secret in them: logs, and Airflow's metadata with its rendered templates."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if secrets_in(path.read_bytes())]


def test_the_scheduler_runs_the_check_which_names_what_the_database_lost_and_masks_secrets(
    deployment: Deployment,
) -> None:
    # What was there before counts for nothing, even where a time zone makes it look new.
    with psycopg.connect(deployment.uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tap_balance")
        connection.execute(
            "CREATE TABLE tap_balance.balance AS SELECT 'empty@2026-01-01T00:00:00Z' AS "
            "snapshot_id, 'empty' AS account, timestamp '2999-01-01' AS snapshot_at"
        )
        connection.execute("ALTER TABLE tap_balance.balance ADD PRIMARY KEY (snapshot_id)")
        connection.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        connection.execute(
            "CREATE TRIGGER lose BEFORE INSERT ON tap_balance.balance FOR EACH ROW "
            "WHEN (new.account <> 'example') EXECUTE FUNCTION lose()"
        )
    # Two accounts bear the name of a secret, to see that one that comes up is masked.
    unlucky = [account(SECRET, "empty"), account(DATABASE_SECRET, "empty")]
    airflow = deployment.airflow({"TAP_BALANCE_ACCOUNTS": [*ACCOUNTS, *unlucky]})
    airflow.environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
    with airflow.running():
        deadline = time.monotonic() + 120
        while not (
            ended := airflow.query("SELECT run_id, state FROM dag_run WHERE end_date IS NOT NULL")
        ):
            assert time.monotonic() < deadline, (deployment.home / "scheduler.log").read_text()
            time.sleep(0.5)
    [(run, state)] = ended
    assert run.startswith("scheduled__")
    assert state == "failed"
    assert tasks_of(airflow, run) == {
        "shards": ("success", 1),
        "load 1/1": ("success", 1),
        "check_freshness": ("failed", 1),
    }
    [log] = (deployment.home / "logs").rglob("task_id=check_freshness/attempt=1.log")
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    [message] = [
        detail["exc_value"]
        for event in events
        for detail in event.get("error_detail", ())
        if event["event"] == "Task failed with exception"
    ]
    assert re.fullmatch(
        r"4 of 5 accounts have no snapshot since \S+T00:00:00Z: "
        + re.escape(f"{ODD!r}, 'empty', '***', '***'"),
        message,
    ), message
    assert "account 'empty': no snapshot since" in log.read_text(encoding="utf-8")
    # The scheduler passes on what a task prints; Airflow itself does not mask that.
    printed = deployment.home / "scheduler.log"
    lines = printed.read_bytes().splitlines()
    assert any(b"[debug" in line for line in lines)
    names = [line for line in lines if secrets_in(line)]
    assert [line for line in names if b"task_id=check_freshness" not in line] == []
    assert set(secrets_below(deployment.home)) <= {str(printed)}


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


def test_a_wrong_connection_is_one_line_without_its_values(home: Path) -> None:
    no_object = "must be a JSON object with the environment for Meltano; see .env.example"
    wrong = {
        "": no_object,
        "{}": no_object,
        f'["{SECRET}"]': no_object,
        f'{{"dev_secret": "{SECRET}"}}': "'dev_secret' is no environment variable; write the",
    }
    outcomes = call(
        Airflow(home, {}, {}, {}),
        *(("settings_from", [json.dumps({"conn_type": "generic", "extra": e})]) for e in wrong),
    )
    for outcome, error in zip(outcomes, wrong.values(), strict=True):
        assert error in outcome["error"]
        assert outcome["error"].startswith(
            "AirflowFailException: the extra of the connection 'tap_balance'"
        )
        assert "\n" not in outcome["error"]
        assert SECRET not in outcome["error"]


def test_a_secret_that_meltano_would_print_is_blanked_out(home: Path) -> None:
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
        Airflow(home, {}, {}, {}),
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


def processes_with(variable: str, folder: Path | None = None) -> list[str]:
    """Command lines of processes with this in their environment, or that run in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (process / "environ").read_bytes().split(b"\0")
            if variable.encode() in environment or (process / "cwd").resolve() == folder:
                found.append((process / "cmdline").read_bytes().decode(errors="replace"))
    return found


DEMO_HOME = ROOT / "demo-output" / "airflow"
OF_THE_DEMO = f"TAP_BALANCE_DAG_PROJECT={ROOT}"


def test_the_demo_shows_a_scheduled_run_and_its_rows_and_leaves_nothing_running() -> None:
    with demo("airflow_demo.py") as process:
        stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stdout + stderr
    assert stderr == ""
    for task in ("shards               ", "load             1/2 ", "load             2/2 "):
        assert f"  {task} success" in stdout
    for task in ("check_freshness", "build", "alert"):
        assert re.search(rf"{task} +success \(try 1\)", stdout)
    for name in ("main", "marketing", "otp"):
        assert re.search(rf"^ {name}@\d{{4}}-\d\d-\d\dT\d\d:\d\d:00Z ", stdout, re.MULTILINE)
    logs = {path.parent.name for path in (DEMO_HOME / "logs").rglob("attempt=1.log")}
    assert {"map_index=0", "map_index=1", "task_id=check_freshness"} <= logs
    assert secrets_below(DEMO_HOME) == []
    assert processes_with(OF_THE_DEMO, DEMO_HOME) == []


def test_an_interrupted_demo_ends_airflow_and_what_it_runs() -> None:
    with demo("airflow_demo.py") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Starting Airflow"):
            assert process.poll() is None
        deadline = time.monotonic() + 60
        while not any("--state-id-suffix" in line for line in processes_with(OF_THE_DEMO)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert processes_with(OF_THE_DEMO, DEMO_HOME) == []
