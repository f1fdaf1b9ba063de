"""What the tasks do: plan a run, run Meltano, check the rows, and report the alerts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psutil
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import Asset, BaseOperator, Connection, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret, redact

from tap_balance_airflow import settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = socket.gethostname()
BALANCE = Asset("tap_balance")
OPTIONS = {"alerts", "dbt", "loader", "meltano", "project", "table"}  # the Variable's keys
OWN = {  # of what is started, unless the connection sets it; empty: the folder of the run
    "DBT_LOG_FORMAT": "json",
    "DBT_LOG_PATH": "",
    "DBT_TARGET_PATH": "",
    "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
    "MELTANO_ENVIRONMENT": "prod",
    "XDG_STATE_HOME": "",  # of Meltano's own logs
}
SHOWN = 20  # lines in a message; the log has all
REPORTED = "tap_balance_reported"  # the Variable with the alerts that people know of
PERMANENT = re.compile("HTTP 40[13]|ermission denied|authentication failed|nsufficient privileges")
PLAIN_ERRORS = ("sh: ", "Error: ")  # of the shell, and of Meltano's command line; not JSON
SECRET = re.compile(r'://[^:/@\s]*:([^@\s]+)@|"dev_secret": *"((?:[^"\\]|\\.)+)"')

log = logging.getLogger("airflow.task")


def read_options() -> dict[str, str]:
    """Read the Variable, a JSON object."""
    # Not found, with a retry: Airflow does not distinguish it from a secrets backend that is down.
    options: dict[str, str] = Variable.get("tap_balance", deserialize_json=True)
    if set(options) != OPTIONS:
        msg = f"Variable 'tap_balance': its keys must be {', '.join(sorted(OPTIONS))}"
        raise AirflowFailException(msg)
    return options


def read_environment() -> dict[str, str]:
    """Read the environment for Meltano from the connection, and let Airflow mask its secrets."""
    extra = Connection.get("tap_balance").extra
    try:
        given = json.loads(extra or "")
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
    except (ValueError, AttributeError):
        texts = {}
    if not texts or not all(re.fullmatch("[A-Z][A-Z0-9_]*", name) for name in texts):
        msg = (
            "the extra of the connection 'tap_balance' must be a JSON object with environment "
            "variables for Meltano, such as TAP_BALANCE_ACCOUNTS_FILE; see .env.example"
        )
        raise AirflowFailException(msg)
    # Airflow decides by the names, and warns of what is too short. A key in PEM has many lines.
    mask_secret({k: re.findall(r".{5,}", text) for k, text in texts.items()})
    found = [secret for text in texts.values() for pair in SECRET.findall(text) for secret in pair]
    mask_secret([*found, *map(unquote, found)])
    # Airflow's own settings and connections stay out of what is started.
    return {name: v for name, v in os.environ.items() if "AIRFLOW" not in name} | OWN | texts


def read_accounts(env: Mapping[str, str], project: str) -> tuple[list[str], str]:
    """Read the accounts, from where the tap takes them.

    Returns:
        The names of those that are switched on, and a fingerprint of all: their number, and a hash
        of what is not secret.
    """
    file = env.get("TAP_BALANCE_ACCOUNTS_FILE")
    variable = "TAP_BALANCE_ACCOUNTS_FILE" if file else "TAP_BALANCE_ACCOUNTS"
    try:
        if file:
            text = Path(project, file).read_text(encoding="utf-8-sig")
        elif env.get("TAP_BALANCE_DEV_KEY"):
            text = json.dumps({"account": env.get("TAP_BALANCE_ACCOUNT") or "default"})
        elif not (text := env.get(variable, "")):
            msg = (
                "none of TAP_BALANCE_ACCOUNTS_FILE, TAP_BALANCE_ACCOUNTS and TAP_BALANCE_DEV_KEY "
                "is in the extra of the connection 'tap_balance' (a .env is not read)"
            )
            raise AirflowFailException(msg)
        lines = ",".join(filter(str.strip, text.split("\n")))
        entries = json.loads(text if text.lstrip().startswith("[") else f"[{lines}]")
        names = [entry["account"] for entry in entries if entry.get("enabled", True)]
        shared = {k: env.get(f"TAP_BALANCE_{k.upper()}") for k in ("product", "base_url")}
        without = dict.fromkeys(("dev_key", "dev_secret"))
        hashed = sorted(json.dumps(shared | e | without, sort_keys=True) for e in entries)
    except OSError as error:
        msg = f"{variable}: cannot be read on {HOST} ({error.strerror})"
        raise AirflowException(msg) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        hashed = []
    if not hashed:
        msg = f"{variable}: not a list of accounts; `tap-balance --test` reports what is wrong"
        raise AirflowFailException(msg)
    digest = hashlib.sha256("\n".join(hashed).encode()).hexdigest()
    return names, f"{len(hashed)} ({digest[:16]})"


def verified_accounts(shape: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """List the accounts that are switched on; fail where this worker's are not the plan's.

    Without a retry: it could find a worker with the same wrong file as the plan's, and be green.
    """
    names, found = read_accounts(env, shape["project"])
    if found != shape["accounts"]:
        differ = f"{found}, planned {shape['accounts']}"
        msg = f"{HOST} has other accounts than the plan of this run: {differ}"
        raise AirflowFailException(msg)
    return names


def plan(context: Mapping[str, Any], minutes: int) -> list[dict[str, Any]]:
    """Decide the shape of a run, one entry for each shard.

    The interval is the one in which the run began by the scheduler's clock, not by a worker's.
    """
    options = read_options()
    _, accounts = read_accounts(read_environment(), options["project"])
    began = int(context["dag_run"].start_date.timestamp())
    start = datetime.fromtimestamp(began - began % (minutes * 60), tz=timezone.utc)
    shape = options | {
        "snapshot_at": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "interval": f"PT{minutes}M",
        "accounts": accounts,
    }
    log.info("The shape of this run: %s", shape)
    count = context["params"]["shards"]
    return [shape | {"shard": f"{index}/{count}"} for index in range(1, count + 1)]


class MeltanoHook(SubprocessHook):
    """SubprocessHook that logs the text of Meltano's JSON lines, and keeps the errors."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.own_errors: list[str] = []

    @property
    def log(self) -> MeltanoHook:
        """Stand in for the logger of SubprocessHook, which logs each line with `info`."""
        return self

    def info(self, message: str, *values: object) -> None:
        """Log a line of Meltano's or dbt's, a JSON object, or one of SubprocessHook's own."""
        event: dict[str, Any] = {"event": message % values}
        with contextlib.suppress(ValueError, TypeError, KeyError):
            event |= json.loads(event["event"])
            event |= json.loads(event["event"])["info"]  # dbt's is in Meltano's
        # Airflow masks a task's log, but not what LocalExecutor copies of it to its own stdout.
        text = redact(str(event.get("msg", event["event"])).rstrip())
        severe = event.get("level") in {"error", "critical"} or text.startswith(PLAIN_ERRORS)
        log.log(logging.ERROR if severe else logging.INFO, "%s", text)
        if severe and "the target has probably ended" not in text:  # the target has said why
            kept = self.errors if "stdio" in event else self.own_errors
            kept.append(" ".join(text.split()))

    def causes(self) -> list[str]:
        """List what the plugins reported as errors; if nothing, what Meltano did first."""
        return self.errors or self.own_errors[:1]


class MeltanoOperator(BaseOperator):
    """Runs Meltano; its environment is never a template field, which Airflow stores and shows."""

    template_fields = ()

    def meltano(
        self, where: str, options: Mapping[str, Any], env: dict[str, str], *arguments: str
    ) -> None:
        """Run Meltano in a system folder of its own.

        Meltano keeps catalog, state and config of a running plugin in files of fixed names there,
        so that two runs of one plugin overwrite each other's (meltano/meltano#8763).
        """
        self.hook = MeltanoHook()
        prefix = f"tap-balance+{HOST}+"  # no host name has a plus
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            # Of a task that was killed, with its secrets.
            pid = left.name.split("+")[2]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}+") as folder:
            installed = Path(options["project"], env.get("MELTANO_SYS_DIR_ROOT", ".meltano"))
            for kind in ("extractors", "loaders", "utilities"):
                if (installed / kind).exists():
                    Path(folder, kind).symlink_to(installed / kind)
            own = {name: folder for name in OWN if not env[name]} | {"MELTANO_SYS_DIR_ROOT": folder}
            # Airflow talks to its supervisor over a task's stdin.
            script = 'umask 077; cd "$1" && shift && exec "$@" </dev/null'
            # Shards that start at once would install a changed plugin over each other.
            meltano = [options["meltano"], "--log-format=json", "run", "--no-install", *arguments]
            command = ["/bin/sh", "-c", script, "sh", options["project"], *meltano]
            status = self.hook.run_command(command, env=env | own, cwd=folder).exit_code
        if status:
            raise failure(where, self.hook.causes() or [f"Meltano ended with status {status}"])

    def on_kill(self) -> None:
        """End Meltano and what it has started."""
        with contextlib.suppress(AttributeError, ProcessLookupError):
            self.hook.send_sigterm()


class Load(MeltanoOperator):
    """Loads one shard of the accounts, as the plan says."""

    def __init__(self, *, shape: dict[str, Any], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.shape = shape

    def execute(self, context: Any) -> None:  # noqa: ANN401
        """Check that this worker has the accounts of the plan, and load."""
        shape, env = self.shape, read_environment()
        context["shard"] = shard = shape["shard"]  # for map_index_template
        verified_accounts(shape, env)
        env |= {
            "TAP_BALANCE_SHARD": shard,
            "TAP_BALANCE_SNAPSHOT_AT": shape["snapshot_at"],
            "TAP_BALANCE_SNAPSHOT_INTERVAL": shape["interval"],
        }
        state = f"--state-id-suffix=shard-{shard.replace('/', '-of-')}"
        self.meltano(f"shard {shard}", shape, env, state, "tap-balance", shape["loader"])


class Dbt(MeltanoOperator):
    """Runs dbt's `build`."""

    def execute(self, context: Any) -> None:  # noqa: ANN401, ARG002
        """Build and test the models."""
        options = read_options()
        env = read_environment() | {"DBT_SNAPSHOT_INTERVAL_SECONDS": str(settings.MINUTES * 60)}
        self.meltano("dbt", options, env, f"{options['dbt']}:build")


def failure(where: str, lines: Sequence[str]) -> AirflowException:
    """Make a task's exception of the lines with the cause; no retry cures a missing permission."""
    kind = AirflowFailException if all(map(PERMANENT.search, lines)) else AirflowException
    return kind(f"{where} on {HOST}: {joined(lines)}")


def joined(lines: Sequence[str], separator: str = "; ") -> str:
    """Join the lines of a message, and cut off what is too much for one."""
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return separator.join([*lines[:SHOWN], *more])


def query(sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Read from the destination; `?` stands for a value."""
    try:
        hook = Connection.get("tap_balance_destination").get_hook()
        hook.log_sql = False
        rows: list[tuple[Any, ...]] = hook.get_records(sql.replace("?", hook.placeholder), values)
    except Exception as error:  # noqa: BLE001 - each database has exceptions of its own
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise failure("connection 'tap_balance_destination'", [reason]) from None
    return rows


def check(shape: Mapping[str, Any]) -> None:
    """Fail unless each account that is switched on has its row of this run, by primary key."""
    names = verified_accounts(shape, read_environment())
    keys = sorted(f"{name}@{shape['snapshot_at']}" for name in names)
    # For databases without an index: a partition's worth. The target's time zone may shift it.
    since = datetime.fromisoformat(shape["snapshot_at"][:-1]) - timedelta(days=1)
    found: set[str] = set()
    for first in range(0, len(keys), 5000):
        part = keys[first : first + 5000]
        sql = f"SELECT snapshot_id FROM {shape['table']} WHERE snapshot_at > ? AND snapshot_id IN "  # noqa: S608
        sql += f"({', '.join('?' * len(part))})"
        found.update(key for (key,) in query(sql, str(since), *part))
    missing = [key for key in keys if key not in found]
    for key in missing:
        log.error("No row %s", key)
    if missing:
        msg = f"{len(missing)} of {len(keys)} rows are missing: {joined(missing)}"
        raise AirflowFailException(msg)
    log.info("All %d accounts have a row of %s", len(keys), shape["snapshot_at"])


def publish() -> None:
    """Skip the task where the destination cannot be read: dbt would fail for the same cause."""
    try:
        query(f"SELECT 1 FROM {read_options()['table']} WHERE 1 = 0")  # noqa: S608
    except AirflowException as error:
        raise AirflowSkipException(str(error)) from None


def alert(context: Mapping[str, Any]) -> None:
    """Report the accounts whose state has changed since it was last reported.

    Raises:
        AirflowFailException: An account came into trouble, and there are no notifiers; or some of
            them could not send the message.
    """
    # dbt's own `state` compares with its last build, whose message may not have been sent. The
    # Variable is in Airflow's database, which is read even if a secrets backend is down.
    reported: dict[str, list[str]] = Variable.get(REPORTED, default={}, deserialize_json=True)
    table = read_options()["alerts"]
    current: dict[str, list[str]] = {}
    over: dict[str, str] = {}
    sql = f"SELECT alert_id, account, severity, state, message FROM {table}"  # noqa: S608
    for key, account, severity, state, text in query(sql):
        if state == "over":
            over[key] = text
        else:
            current[key] = [account, severity, text]
            log.log(logging.ERROR if severity == "error" else logging.WARNING, "%s", text)
    new = {key: alert for key, alert in current.items() if key not in reported}
    worse = {account for account, _, _ in new.values()}  # of those, the new message says it all
    lines = [text for _, _, text in new.values()] + [
        f"resolved: {over.get(key, text)}"
        for key, (account, _, text) in reported.items()
        if key not in current and account not in worse
    ]
    errors = notify(context, joined(lines, "\n")) if lines else []
    # Only now: a message that nobody got is sent by the retry, or by the next run.
    Variable.set(REPORTED, current, serialize_json=True)
    if not settings.notifiers():
        errors = [text for _, severity, text in new.values() if severity == "error"]
    if errors:
        raise AirflowFailException(joined(errors))


def notify(context: Mapping[str, Any], message: str) -> list[str]:
    """Send a message through all notifiers, and list why some of them could not.

    Raises:
        AirflowException: None of them could.
    """
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


def notify_failure(context: Mapping[str, Any]) -> None:
    """Send the exception of a task that has failed; the DAG processor has none."""
    reason = context.get("exception") or "its worker was lost; see the log"
    notify(context, f"{context['ti'].dag_id}.{context['ti'].task_id}: {reason}")
