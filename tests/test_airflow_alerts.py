"""Messages to people: the notifiers of docs/airflow.md in a real Airflow, once for each change."""

from __future__ import annotations

import json
import socket
import subprocess
import textwrap
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from bank import serving
from deployment import ACCOUNTS, PYTHON
from pages import doc
from receivers import Hook, Mail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_home import Airflow
    from deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

CRITICAL = ("1", "shop", "error", "ongoing", "account shop is critical: 1.00 USD <2 days>")
EMPTY = ("2", "shop", "error", "new", "account shop is empty: 0.00 USD")
LOW = ("3", "otp", "warn", "new", "account otp is low: 9.00 USD")
LOW_OVER = ("3", "otp", "warn", "over", "account otp is not low any more: about 20 days left")

RUNS = """
import json, os, sys
import psycopg2
from airflow.dag_processing.dagbag import DagBag

folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
sys.path.insert(0, folder)
dag = DagBag(folder).dags["tap_balance_runway"]
states = []
for rows in json.loads(sys.argv[1]):
    with psycopg2.connect(sys.argv[2]) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM alerts")
        for row in rows:
            cursor.execute("INSERT INTO alerts VALUES (%s, %s, %s, %s, %s)", row)
    run = dag.test(mark_success_pattern="build")
    states.append(run.get_task_instance("alerts").state)
print(json.dumps(states))
"""


def run_alerts(
    deployment: Deployment, airflow: Airflow, *tables: Sequence[tuple[str, ...]]
) -> list[str]:
    """Run the DAG `tap_balance_runway` for each of these states of the alerts, without dbt."""
    done = subprocess.run(
        [PYTHON, "-c", RUNS, json.dumps(tables), deployment.uri],
        env=airflow.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    deployment.output = done.stdout + done.stderr
    assert done.returncode == 0, deployment.output
    states: list[str] = json.loads(done.stdout.splitlines()[-1])
    return states


@pytest.fixture
def airflow(deployment: Deployment) -> Airflow:
    with psycopg.connect(deployment.uri) as connection:
        connection.execute(
            "CREATE TABLE alerts "
            "(alert_id text, account text, severity text, state text, message text)"
        )
    return deployment.airflow({"TAP_BALANCE_ACCOUNTS": ACCOUNTS}, alerts="alerts")


@pytest.fixture
def receivers(airflow: Airflow) -> Iterator[tuple[Hook, Mail]]:
    """The notifiers of the page, and what they send to."""
    settings = airflow.dags / "tap_balance_airflow" / "settings.py"
    (notifiers,) = [text for _, text in doc("airflow").blocks if "def notifiers" in text]
    settings.write_text(f"{settings.read_text()}\n\n{textwrap.dedent(notifiers)}")
    with ExitStack() as stack:
        hook, mail = stack.enter_context(Hook()), stack.enter_context(Mail())
        stack.enter_context(serving(hook))
        stack.enter_context(serving(mail))
        url = f"http://127.0.0.1:{hook.server_port}"
        connections: dict[str, dict[str, Any]] = {
            "slack": {"conn_type": "slackwebhook", "host": f"{url}/slack", "password": "T0/B0/x"},
            "webhook": {"conn_type": "http", "host": f"{url}/hook"},
            "smtp_default": {
                "conn_type": "smtp",
                "host": "127.0.0.1",
                "port": mail.server_address[1],
                "extra": {"disable_ssl": True, "disable_tls": True, "from_email": "a@example.com"},
            },
        }
        for name, connection in connections.items():
            airflow.environment[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(connection)
        yield hook, mail


def test_each_change_of_an_accounts_state_is_one_message_through_every_notifier(
    deployment: Deployment, airflow: Airflow, receivers: tuple[Hook, Mail]
) -> None:
    hook, mail = receivers
    history = [[], [CRITICAL], [CRITICAL], [EMPTY, LOW], [LOW], [LOW_OVER], [LOW_OVER]]
    states = run_alerts(deployment, airflow, *history)
    assert states == ["success"] * len(history), deployment.output
    messages = [
        CRITICAL[4],
        f"{EMPTY[4]}\n{LOW[4]}",
        f"resolved: {EMPTY[4]}",
        f"resolved: {LOW_OVER[4]}",
    ]
    sent = [(path, body["text"]) for path, body in hook.received]
    assert [text for path, text in sent if path.startswith("/slack")] == messages
    assert [text for path, text in sent if path.startswith("/hook")] == messages
    escaped = [text.replace("<", "&lt;").replace(">", "&gt;") for text in messages]
    bodies = [(subject, body.strip()) for subject, body in mail.received]
    assert bodies == [
        (text.splitlines()[0], f"<pre>{html}</pre>")
        for text, html in zip(messages, escaped, strict=True)
    ]


def test_a_message_that_nobody_got_is_sent_by_the_next_run(
    deployment: Deployment, airflow: Airflow, receivers: tuple[Hook, Mail]
) -> None:
    hook, mail = receivers
    reached = dict(airflow.environment)
    for name in ("AIRFLOW_CONN_SLACK", "AIRFLOW_CONN_WEBHOOK", "AIRFLOW_CONN_SMTP_DEFAULT"):
        airflow.environment[name] = reached[name].replace("127.0.0.1", "127.0.0.1.invalid")
    assert run_alerts(deployment, airflow, [CRITICAL]) == ["failed"]
    assert mail.received == hook.received == []
    airflow.environment.update(reached)
    assert run_alerts(deployment, airflow, [CRITICAL]) == ["success"]
    assert [path.split("/")[1] for path, _ in hook.received] == ["slack", "hook"]


def test_a_broken_notifier_is_reported_once_by_the_others_without_its_url(
    deployment: Deployment, airflow: Airflow, receivers: tuple[Hook, Mail]
) -> None:
    hook, mail = receivers
    slack = airflow.environment["AIRFLOW_CONN_SLACK"]
    airflow.environment["AIRFLOW_CONN_SLACK"] = slack.replace("127.0.0.1", "127.0.0.1:1/")
    states = run_alerts(deployment, airflow, [CRITICAL], [CRITICAL])
    assert states == ["failed", "success"], deployment.output
    subjects = [subject for subject, _ in mail.received]
    assert subjects[0] == CRITICAL[4]
    assert subjects[1].startswith(
        f"tap_balance_runway.alerts: notifier SlackWebhookNotifier on {socket.gethostname()}: "
    )
    assert len(subjects) == len(hook.received) == 2
    assert "T0/B0" not in str(hook.received)


def test_without_notifiers_the_task_fails_once_for_an_account_in_trouble(
    deployment: Deployment, airflow: Airflow
) -> None:
    states = run_alerts(deployment, airflow, [LOW], [LOW, CRITICAL], [LOW, CRITICAL], [])
    assert states == ["success", "failed", "success", "success"], deployment.output
    assert f"AirflowFailException: {CRITICAL[4]}\n" in deployment.output
