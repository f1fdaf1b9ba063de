"""What the tasks do: plan a run, run Meltano, check the rows, and report the alerts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Connection, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.log import mask_secret, redact

from tap_balance_airflow import settings

HOST = socket.gethostname()
REPORTED = "tap_balance_reported"  # the Variable with the alerts that people know of
# For the tap's own Python, which prints the names of the accounts that are switched on, and their
# fingerprint. The `repr` of an account has none of its secrets.
LIST_ACCOUNTS = """
import hashlib, json
from tap_balance.tap import TapBalance
accounts = sorted(TapBalance(parse_env_config=True).accounts, key=lambda account: account.name)
digest = hashlib.sha256(repr(accounts).encode()).hexdigest()
print(json.dumps([[account.name for account in accounts], f"{len(accounts)} ({digest[:16]})"]))
"""
SECRET = re.compile(r'://[^:/@\s]*:([^@\s]+)@|"dev_secret": *"((?:[^"\\]|\\.)+)"')

log = logging.getLogger("airflow.task")


def read_environment(own_folder: str = "") -> dict[str, str]:
    """Read the environment for Meltano from the connection, and let Airflow mask its secrets."""
    # Not found, with a retry: Airflow does not distinguish it from a secrets backend that is down.
    extra = Connection.get("tap_balance").extra_dejson
    if not extra or not isinstance(extra, dict) or not all(map(str.isupper, extra)):
        msg = "connection 'tap_balance': its extra must be a JSON object of environment variables"
        raise AirflowFailException(msg)
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in extra.items()}
    # Airflow decides by the names, and warns of what is too short. A key in PEM has many lines.
    mask_secret({k: re.findall(r".{5,}", text) for k, text in texts.items()})
    found = [secret for text in texts.values() for pair in SECRET.findall(text) for secret in pair]
    mask_secret([*found, *map(unquote, found)])
    # Airflow's own settings and connections stay out of what is started.
    env = {name: text for name, text in os.environ.items() if "AIRFLOW" not in name}
    env |= dict.fromkeys(("DBT_LOG_PATH", "DBT_TARGET_PATH", "XDG_STATE_HOME"), own_folder)
    env |= {"DBT_LOG_FORMAT": "json", "MELTANO_CLI_DISABLE_VERSION_CHECK": "true"}
    return {"MELTANO_SYS_DIR_ROOT": ".meltano"} | env | {"MELTANO_ENVIRONMENT": "prod"} | texts


def read_accounts(planned: str = "") -> tuple[list[str], str]:
    """Let the tap list the accounts, which must be those of the plan."""
    env = read_environment()
    python = f"{env['MELTANO_SYS_DIR_ROOT']}/extractors/tap-balance/venv/bin/python"
    command = ["/bin/sh", "-c", f"cd '{settings.PROJECT}' && exec '{python}'"]
    done = subprocess.run(command, env=env, input=LIST_ACCOUNTS, capture_output=True, text=True)  # noqa: PLW1510, S603
    if done.returncode:
        raise failure("the accounts", done.stderr.splitlines()[-1:])
    names, found = json.loads(done.stdout)
    if planned not in {"", found}:
        msg = f"{HOST} has other accounts than the plan of this run: {found}, planned {planned}"
        # A retry could find a worker with the same wrong file as the plan's, and be green.
        raise AirflowFailException(msg)
    return names, found


def plan(**context: Any) -> list[dict[str, str]]:  # noqa: ANN401
    """Decide the shape of a run: what all its tasks work on, one entry for each shard."""
    # The interval is the one in which the run began by the scheduler's clock, not by a worker's.
    began = int(context["dag_run"].start_date.timestamp())
    start = datetime.fromtimestamp(began - began % (settings.MINUTES * 60), tz=timezone.utc)
    shape = {
        "PLANNED_ACCOUNTS": read_accounts()[1],
        "TAP_BALANCE_SNAPSHOT_AT": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "TAP_BALANCE_SNAPSHOT_INTERVAL": f"PT{settings.MINUTES}M",
    }
    count = context["params"]["shards"]
    return [shape | {"TAP_BALANCE_SHARD": f"{index}/{count}"} for index in range(1, count + 1)]


class MeltanoHook(SubprocessHook):
    """SubprocessHook that logs the text of Meltano's JSON lines, and keeps the errors."""

    log = property(lambda self: self)  # SubprocessHook logs each line with `info`

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.own_errors: list[str] = []  # of Meltano itself; the first is the cause of the others

    def info(self, message: str, *values: object) -> None:
        """Log a line: JSON, or text of SubprocessHook, the shell or Meltano's command line."""
        event: dict[str, Any] = {"event": message % values}
        with contextlib.suppress(ValueError, TypeError, KeyError):
            event |= json.loads(event["event"])
            event |= json.loads(event["event"])["info"]  # dbt's is in Meltano's
        # Airflow masks a task's log, but not what LocalExecutor copies of it to its own stdout.
        text = redact(str(event.get("msg", event["event"])).rstrip())
        severe = event.get("level") in {"error", "critical"} or re.match(r"\S*sh: |Error: ", text)
        log.log(logging.ERROR if severe else logging.INFO, "%s", text)
        if severe and "the target has probably ended" not in text:  # the target has said why
            kept = self.errors if "stdio" in event else self.own_errors
            kept.append(" ".join(text.split()))


class Meltano(BashOperator):
    """Runs Meltano; its environment is never a template field, which Airflow stores and shows."""

    template_fields = ()

    def __init__(self, *, run: str, shape: dict[str, str], **kwargs: Any) -> None:  # noqa: ANN401
        # Shards that start at once would install a changed plugin over each other.
        command = f"'{settings.MELTANO}' --log-format=json run --no-install {run}"
        # Airflow talks to its supervisor over a task's stdin.
        command = f"umask 077; exec {command} </dev/null"
        super().__init__(bash_command=command, cwd=settings.PROJECT, **kwargs)
        self.shape = shape

    def execute(self, context: Any) -> None:  # noqa: ANN401
        """Run it in a system folder of its own.

        Meltano keeps catalog, state and config of a running plugin in files of fixed names there,
        so that two runs of one plugin overwrite each other's (meltano/meltano#8763).
        """
        if "PLANNED_ACCOUNTS" in self.shape:
            read_accounts(self.shape["PLANNED_ACCOUNTS"])
        self.subprocess_hook = MeltanoHook()
        prefix = f"tap-balance+{HOST}+"  # no host name has a plus
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}[0-9]*"):
            # Of a task that was killed, with its secrets.
            if not psutil.pid_exists(int(left.name.split("+")[2])):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}+") as folder:
            env = read_environment(folder)
            for kind in ("extractors", "loaders", "utilities"):
                if (installed := Path(self.cwd, env["MELTANO_SYS_DIR_ROOT"], kind)).exists():
                    Path(folder, kind).symlink_to(installed)
            self.env = env | self.shape | {"MELTANO_SYS_DIR_ROOT": folder}
            try:
                super().execute(context)
            except AirflowException as error:
                where = f"{self.task_id} {self.shape.get('TAP_BALANCE_SHARD', '')}".rstrip()
                hook = self.subprocess_hook
                raise failure(where, hook.errors or hook.own_errors[:1] or [str(error)]) from None


def failure(where: str, lines: list[str]) -> AirflowException:
    """Make a task's exception of the lines with the cause; no retry cures a missing permission."""
    kind = (
        AirflowFailException
        if all(re.search(settings.PERMANENT, line) for line in lines)
        else AirflowException
    )
    return kind(f"{where} on {HOST}: {joined(lines)}")


def joined(lines: list[str], separator: str = "; ") -> str:
    """Join the lines of a message; the log has those that are too many for one."""
    more = [f"and {len(lines[20:])} more"] if lines[20:] else []
    return separator.join(lines[:20] + more)


def query(sql: str, *values: object) -> Any:  # noqa: ANN401 - a list of rows
    """Read from the destination; `?` stands for a value."""
    try:
        hook = Connection.get("tap_balance_destination").get_hook()
        hook.log_sql = False
        return hook.get_records(sql.replace("?", hook.placeholder), values)
    except Exception as error:  # noqa: BLE001 - each database has exceptions of its own
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise failure("connection 'tap_balance_destination'", [reason]) from None


def check(shapes: list[dict[str, str]]) -> None:
    """Fail unless each account that is switched on has its row of this run, by primary key."""
    snapshot_at = shapes[0]["TAP_BALANCE_SNAPSHOT_AT"]
    keys = [f"{name}@{snapshot_at}" for name in read_accounts(shapes[0]["PLANNED_ACCOUNTS"])[0]]
    # For databases without an index: a partition's worth. The target's time zone may shift it.
    since = datetime.fromisoformat(snapshot_at[:-1]) - timedelta(days=1)
    found: set[str] = set()
    for first in range(0, len(keys), 5000):
        part = keys[first : first + 5000]
        sql = f"SELECT snapshot_id FROM {settings.TABLE} WHERE snapshot_at > ? AND snapshot_id IN "  # noqa: S608
        sql += f"({', '.join('?' * len(part))})"
        found.update(key for (key,) in query(sql, str(since), *part))
    if missing := [key for key in keys if key not in found]:
        log.error("No rows %s", ", ".join(missing))
        msg = f"{len(missing)} of {len(keys)} rows are missing: {joined(missing)}"
        raise AirflowFailException(msg)


def alerts(**context: Any) -> None:  # noqa: ANN401
    """Report the accounts whose state has changed since it was last reported."""
    # dbt's own `state` compares with its last build, whose message may not have been sent.
    reported: dict[str, list[str]] = Variable.get(REPORTED, default={}, deserialize_json=True)
    rows = query(f"SELECT alert_id, account, severity, state, message FROM {settings.ALERTS}")  # noqa: S608
    over = {key: text for key, *_, state, text in rows if state == "over"}
    current = {key: alert for key, *alert in rows if key not in over}
    log.info("%s", "\n".join(text for *_, text in current.values()) or "No alerts")
    new = [alert for key, alert in current.items() if key not in reported]
    worse = {account for account, *_ in new}  # of those, the new message says it all
    lines = [text for *_, text in new] + [
        f"resolved: {over.get(key, text)}"
        for key, (account, *_, text) in reported.items()
        if key not in current and account not in worse
    ]
    errors = notify(context, joined(lines, "\n")) if lines else []
    # Only now: a message that nobody got is sent by the retry, or by the next run.
    Variable.set(REPORTED, current, serialize_json=True)
    if not settings.notifiers():
        errors = [text for _, severity, _, text in new if severity == "error"]
    if errors:
        raise AirflowFailException(joined(errors))


def notify(context: dict[str, Any], message: str) -> list[str]:
    """Send a message through all notifiers; list why some could not, or fail if none could."""
    notified = {**context, "message": message, "subject": message.splitlines()[0]}
    notifiers = settings.notifiers()
    errors = []
    for notifier in notifiers:
        try:
            notifier.render_template_fields(notified)
            notifier.notify(notified)
        except Exception as error:  # noqa: BLE001, PERF203 - the others must still be sent
            # A webhook's URL is a secret, which the other notifiers would send.
            reason = re.sub(r"\S*/\S*", "...", f"{type(error).__name__}: {redact(str(error))}")
            errors.append(f"notifier {type(notifier).__name__} on {HOST}: {reason[:300]}")
            log.error("%s", errors[-1])  # noqa: TRY400 - nor must the log have it
    if errors and len(errors) == len(notifiers):
        raise AirflowException("; ".join(errors))
    return errors


def notify_failure(context: dict[str, Any]) -> None:
    """Send the exception of a task that has failed; the DAG processor has none."""
    reason = context.get("exception") or "its worker was lost; see the log"
    notify(context, f"{context['ti'].dag_id}.{context['ti'].task_id}: {reason}")
