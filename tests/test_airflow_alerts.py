"""Messages to people: the notifiers of docs/airflow.md in a real Airflow, once for each change."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sqlite3
import subprocess
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from airflow_home import Airflow
from bank import serving
from deployment import PYTHON
from pages import doc
from parts import ROOT
from receivers import Hook, Mail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import embedded

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

CRITICAL = ("1", "shop", "error", "ongoing", "account shop is critical: 1.00 USD <2 days>")
EMPTY = ("2", "shop", "error", "new", "account shop is empty: 0.00 USD")
LOW = ("3", "otp", "warn", "new", "account otp is low: 9.00 USD")
LOW_OVER = ("3", "otp", "warn", "over", "account otp is not low any more: about 20 days left")

NO_NOTIFIERS = "def notifiers(): return []"
(NOTIFIERS,) = [text for _, text in doc("airflow").blocks if "def notifiers" in text]


class Runway:
    """Runs of the DAG `tap_balance_runway`, without dbt."""

    def __init__(self, airflow: Airflow, process: subprocess.Popen[str], uri: str) -> None:
        self.airflow = airflow
        self.process = process
        self.uri = uri
        self.connections: dict[str, str] = {}
        self.notifiers = NO_NOTIFIERS

    @property
    def log(self) -> str:
        return (self.airflow.home / "runs.log").read_text()

    def forget(self) -> None:
        """Begin like an Airflow that has never run it."""
        self.connections, self.notifiers = {}, NO_NOTIFIERS
        with closing(sqlite3.connect(self.airflow.home / "airflow.db")) as metadata, metadata:
            metadata.execute("DELETE FROM variable")

    def run(self, *tables: Sequence[tuple[str, ...]]) -> list[str]:
        """Run it for each of these states of the alerts, and return those of its task."""
        assert self.process.stdin
        assert self.process.stdout
        states = []
        for rows in tables:
            with psycopg.connect(self.uri) as connection:
                connection.execute("DELETE FROM alerts")
                for row in rows:
                    connection.execute("INSERT INTO alerts VALUES (%s, %s, %s, %s, %s)", row)
            print(json.dumps([self.connections, self.notifiers]), file=self.process.stdin)
            states.append(self.process.stdout.readline().strip())
        return states


@pytest.fixture(scope="module")
def started(
    airflow_database: Path, postgres: embedded.Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runway]:
    home = tmp_path_factory.mktemp("alerts")
    shutil.copy(airflow_database, home)
    made = postgres.create_database("alerts")
    with psycopg.connect(made.uri) as connection:
        connection.execute(
            "CREATE TABLE alerts "
            "(alert_id text, account text, severity text, state text, message text)"
        )
    destination = {"conn_type": "postgres", "host": made.socket_folder, "login": "postgres"}
    airflow = Airflow(
        home, {}, {**destination, "schema": "alerts"}, {"RETRIES": "0", "ALERTS": "'alerts'"}
    )
    with (
        (home / "runs.log").open("w") as stderr,
        subprocess.Popen(
            [PYTHON, ROOT / "tests" / "support" / "runway_runs.py"],
            env=airflow.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            bufsize=1,
        ) as process,
    ):
        yield Runway(airflow, process, made.uri)
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def runway(started: Runway) -> Runway:
    started.forget()
    return started


@pytest.fixture
def receivers(runway: Runway) -> Iterator[tuple[Hook, Mail]]:
    """The notifiers of the page, and what they send to."""
    runway.notifiers = NOTIFIERS
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
            runway.connections[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(connection)
        yield hook, mail


def test_each_change_of_an_accounts_state_is_one_message_through_every_notifier(
    runway: Runway, receivers: tuple[Hook, Mail]
) -> None:
    hook, mail = receivers
    history = [[], [CRITICAL], [CRITICAL], [EMPTY, LOW], [LOW], [LOW_OVER], [LOW_OVER]]
    states = runway.run(*history)
    assert states == ["success"] * len(history), runway.log
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
    runway: Runway, receivers: tuple[Hook, Mail]
) -> None:
    hook, mail = receivers
    reached = dict(runway.connections)
    for name in ("AIRFLOW_CONN_SLACK", "AIRFLOW_CONN_WEBHOOK", "AIRFLOW_CONN_SMTP_DEFAULT"):
        # Nothing listens there. (To look a name up that does not exist can take long.)
        runway.connections[name] = re.sub(r":[ ]?\d{4,}", ":1", reached[name])
    assert runway.run([CRITICAL]) == ["failed"]
    assert mail.received == hook.received == []
    runway.connections.update(reached)
    assert runway.run([CRITICAL]) == ["success"]
    assert [path.split("/")[1] for path, _ in hook.received] == ["slack", "hook"]


def test_a_broken_notifier_is_reported_once_by_the_others_without_its_url(
    runway: Runway, receivers: tuple[Hook, Mail]
) -> None:
    hook, mail = receivers
    slack = runway.connections["AIRFLOW_CONN_SLACK"]
    runway.connections["AIRFLOW_CONN_SLACK"] = slack.replace("127.0.0.1", "127.0.0.1:1/")
    states = runway.run([CRITICAL], [CRITICAL])
    assert states == ["failed", "success"], runway.log
    subjects = [subject for subject, _ in mail.received]
    assert subjects[0] == CRITICAL[4]
    assert subjects[1].startswith(
        f"tap_balance_runway.alerts: notifier SlackWebhookNotifier on {socket.gethostname()}: "
    )
    assert len(subjects) == len(hook.received) == 2
    assert "T0/B0" not in str(hook.received)


def test_without_notifiers_the_task_fails_once_for_an_account_in_trouble(
    runway: Runway,
) -> None:
    states = runway.run([LOW], [LOW, CRITICAL], [LOW, CRITICAL], [])
    assert states == ["success", "failed", "success", "success"], runway.log
    assert f"AirflowFailException: {CRITICAL[4]}\n" in runway.log
