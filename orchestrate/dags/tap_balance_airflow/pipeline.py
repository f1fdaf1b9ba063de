"""What the tasks do: plan a run, run Meltano, check the rows, report the alerts."""

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

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import Asset, BaseOperator, Connection, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.log import mask_secret

from tap_balance_airflow import settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BALANCE = Asset("tap_balance")
DEFAULTS = {  # what the Variable `tap_balance`, a JSON object, can set
    "project": "/opt/meltano/tap-balance",
    "meltano": "meltano",
    "loader": "target-postgres",
    "dbt": "dbt-postgres",
    "table": "tap_balance.balance",
    "alerts": "(SELECT account || status AS alert_id, CASE WHEN status = 'low' THEN 'warn' ELSE "
    "'error' END AS severity, 'new' AS state, 'account ' || account || ' is ' || status AS message "
    "FROM tap_balance_marts.balance_runway WHERE status NOT IN ('ok', 'accumulating')) AS alerts",
}
SHOWN = 20  # lines in a message; the log has all
PERMANENT = re.compile("HTTP 40[13]|ermission denied|authentication failed|nsufficient privileges")
RAISED = re.compile(r"(?:[a-z_]\w*\.)+[A-Z]\w*: .|[A-Z]\w*(?:Error|Exception): .")
DBT_ERROR = re.compile(r"[A-Z]\w+ Error\b|Failure in ")  # the reason is on the next line
SECRET_NAME = re.compile("SECRET|PASSWORD|PASSPHRASE|PRIVATE_KEY|(?:^|_)TOKEN(?:$|_)")
SECRET_VALUE = re.compile(r'://[^:/@\s]*:([^@\s]+)@|"dev_secret": *"((?:[^"\\]|\\.)+)"')

log = logging.getLogger("airflow.task")


def cron(minutes: int) -> str:
    """Write the schedule whose runs begin when the snapshot intervals do (UTC)."""
    if minutes < 1 or (60 % minutes and (minutes % 60 or 24 * 60 % minutes)):
        msg = "MINUTES: must divide 60, or be whole hours that divide a day, such as 15, 60 or 1440"
        raise ValueError(msg)
    hours = minutes // 60
    return f"0 {f'*/{hours}' if hours < 24 else 0} * * *" if hours else f"*/{minutes} * * * *"  # noqa: PLR2004


def plan(context: Mapping[str, Any], minutes: int) -> list[dict[str, Any]]:
    """Decide the shape of a run, one entry for each shard.

    The interval is the one in which the run began by the scheduler's clock, not by a worker's.
    """
    options = read_options()
    accounts = read_accounts(read_environment(), options["project"])
    began = int(context["dag_run"].start_date.timestamp())
    start = datetime.fromtimestamp(began - began % (minutes * 60), tz=timezone.utc)
    shape = options | {
        "snapshot_at": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "interval": f"PT{minutes}M",
        "accounts": len(accounts),
        "fingerprint": fingerprint(accounts),
    }
    log.info("The shape of this run: %s", shape)
    count = context["params"]["shards"]
    return [shape | {"shard": f"{index}/{count}"} for index in range(1, count + 1)]


def read_options() -> dict[str, str]:
    """Read the Variable, over DEFAULTS."""
    given: dict[str, str] = Variable.get("tap_balance", default={}, deserialize_json=True)
    if unknown := set(given) - set(DEFAULTS):
        msg = f"Variable 'tap_balance': unknown {sorted(unknown)}; it can set {', '.join(DEFAULTS)}"
        raise AirflowFailException(msg)
    return DEFAULTS | given


def read_environment() -> dict[str, str]:
    """Read the environment for Meltano from the connection, and let Airflow mask its secrets."""
    try:
        given: dict[str, Any] = json.loads(Connection.get("tap_balance").extra or "")
        texts = {
            k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items() if v is not None
        }
        wrong = not given or not all(re.fullmatch("[A-Z][A-Z0-9_]*", name) for name in given)
    except (AirflowException, ValueError, AttributeError):
        wrong = True
    if wrong:
        msg = (
            "the connection 'tap_balance' must exist, and its extra must be a JSON object with "
            "environment variables for Meltano, such as TAP_BALANCE_ACCOUNTS_FILE; see .env.example"
        )
        raise AirflowFailException(msg)
    for secret in secrets_of(texts):
        mask_secret(secret)
    # Airflow's own settings and connections stay out of what is started.
    return {name: v for name, v in os.environ.items() if "AIRFLOW" not in name} | texts


def secrets_of(variables: Mapping[str, str]) -> list[str]:
    """List the secrets, the longest first; without those in an accounts file, which may be 100,000.

    Airflow masks them in a task's log, but not in what LocalExecutor copies of it to its own stdout
    (measured with Airflow 3.3.2), so that Output blanks them out, too.
    """
    found = {v for name, v in variables.items() if SECRET_NAME.search(name)}
    found |= {part for v in variables.values() for pair in SECRET_VALUE.findall(v) for part in pair}
    found |= {unquote(secret) for secret in found}
    lines = {line for secret in found for line in secret.splitlines()}  # a key in PEM has many
    return sorted((line for line in lines if len(line) > 4), key=len, reverse=True)  # noqa: PLR2004


def read_accounts(variables: Mapping[str, str], project: str) -> list[dict[str, Any]]:
    """Read the accounts without their keys, from where the tap takes them."""
    variable = "TAP_BALANCE_ACCOUNTS"
    try:
        if path := variables.get("TAP_BALANCE_ACCOUNTS_FILE"):
            variable = "TAP_BALANCE_ACCOUNTS_FILE"
            text = Path(project, path).read_text(encoding="utf-8-sig")
            lines = [line for line in text.split("\n") if line.strip()]
            entries = json.loads(text if text.lstrip()[:1] == "[" else f"[{','.join(lines)}]")
        elif variables.get("TAP_BALANCE_DEV_KEY"):
            entries = [{"account": variables.get("TAP_BALANCE_ACCOUNT") or "default"}]
        else:
            entries = json.loads(variables.get(variable) or "[]")
        common = {k: variables.get(f"TAP_BALANCE_{k.upper()}") for k in ("product", "base_url")}
        keys = {"dev_key", "dev_secret"}
        accounts = [common | {k: v for k, v in e.items() if k not in keys} for e in entries]
        if accounts and all(isinstance(account["account"], str) for account in accounts):
            return accounts
    except OSError as error:
        msg = f"{variable}: cannot be read on {socket.gethostname()} ({error.strerror})"
        raise AirflowException(msg) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    msg = f"{variable}: not a list of accounts; `tap-balance --test` reports what is wrong with it"
    raise AirflowFailException(msg)


def fingerprint(accounts: list[dict[str, Any]]) -> str:
    """Hash names, products and URLs; nothing secret."""
    lines = sorted(json.dumps(account, sort_keys=True) for account in accounts)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def verified_accounts(shape: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    """List the accounts that are switched on; fail where this worker's are not the plan's."""
    accounts = read_accounts(variables, shape["project"])
    if (found := fingerprint(accounts)) != shape["fingerprint"]:
        msg = (
            f"{socket.gethostname()} has other accounts than the plan of this run: {len(accounts)} "
            f"({found}), planned {shape['accounts']} ({shape['fingerprint']})"
        )
        raise AirflowException(msg)
    return [account["account"] for account in accounts if account.get("enabled", True)]


def failure(where: str, lines: Sequence[str]) -> AirflowException:
    """Make a task's exception of the lines with the cause; no retry cures a missing permission."""
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    kind = AirflowFailException if all(map(PERMANENT.search, lines)) else AirflowException
    return kind(f"{where} on {socket.gethostname()}: {'; '.join([*lines[:SHOWN], *more])}")


class Meltano(SubprocessHook):
    """SubprocessHook whose log makes Meltano's JSON lines readable and keeps their errors."""

    def __init__(self, secrets: list[str]) -> None:
        super().__init__()
        self.secrets = secrets
        self.tap: list[str] = []
        self.others: list[str] = []
        self.own = ""
        self.exit_codes: dict[str, int] = {}

    @property
    def log(self) -> Meltano:
        """Stand in for the logger of SubprocessHook."""
        return self

    def info(self, message: str, *values: object) -> None:
        """Log a line of Meltano's, a JSON object, or one of SubprocessHook's own."""
        event: dict[str, Any] = {"event": message % values}
        with contextlib.suppress(ValueError, TypeError):
            event = {**json.loads(event["event"])}
        line, severe = str(event.get("event")).rstrip(), event.get("level") in {"error", "critical"}
        for secret in self.secrets:
            line = line.replace(secret, "***")
        log.log(logging.ERROR if severe else logging.INFO, "%s", line)
        if event.get("producer") and severe:
            self.tap.append(line)
        elif "exit_codes" in event:
            self.exit_codes = event["exit_codes"]
        elif event.get("consumer"):
            if not self.others and (severe or RAISED.match(line)):
                self.others.append(line)
        elif event.get("cmd_type") == "command":
            if line and (len(self.others) == 1 or (not self.others and DBT_ERROR.search(line))):
                self.others.append(line.strip())
        elif severe or line.startswith("sh: "):
            self.own = self.own or line

    def run(self, options: Mapping[str, Any], env: dict[str, str], *arguments: str) -> list[str]:
        """Run Meltano in a system folder of its own.

        Meltano keeps catalog, state and config of a running plugin in files of fixed names there,
        so that two runs of one plugin overwrite each other's (meltano/meltano#8763).

        Returns:
            Lines with what went wrong; none if nothing did.
        """
        parent = Path(tempfile.gettempdir())
        for left in parent.glob("tap-balance-*-*"):  # by a task that was killed, with its secrets
            if not Path("/proc", left.name.split("-")[2]).exists():
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"tap-balance-{os.getpid()}-") as folder:
            own = {
                "DBT_LOG_PATH": folder,
                "DBT_TARGET_PATH": folder,
                "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
                "MELTANO_ENVIRONMENT": "prod",
            }
            installed = Path(options["project"], env.get("MELTANO_SYS_DIR_ROOT", ".meltano"))
            for kind in ("extractors", "loaders", "utilities"):
                if (installed / kind).is_dir():
                    Path(folder, kind).symlink_to(installed / kind)
            try:
                status = self.run_command(
                    # Airflow talks to its supervisor over a task's stdin.
                    ["/bin/sh", "-c", 'umask 077; exec "$@" </dev/null', "sh", options["meltano"]]
                    # Shards that start at once would install a changed plugin over each other.
                    + ["--log-format=json", "run", "--no-install", *arguments],
                    env=own | env | {"MELTANO_SYS_DIR_ROOT": folder},
                    cwd=options["project"],
                ).exit_code
            except OSError as error:
                return [f"cannot start Meltano: {error.strerror}: {error.filename}"]
        if status == 0:
            return []
        if "loaders" in self.exit_codes:  # then the tap cannot write either, which is no cause
            self.tap = [line for line in self.tap if line.startswith("account ")]
        causes = [*([": ".join(self.others)] if self.others else []), *self.tap]
        return causes or [self.own or f"Meltano ended with status {status}"]


class MeltanoOperator(BaseOperator):
    """Runs Meltano; its environment is never a template field, which Airflow stores and shows."""

    template_fields = ()

    def execute_meltano(
        self, options: Mapping[str, Any], env: dict[str, str], *arguments: str
    ) -> list[str]:
        """Run Meltano; returns what `Meltano.run` does."""
        self.meltano = Meltano(secrets_of(env))
        return self.meltano.run(options, env, *arguments)

    def on_kill(self) -> None:
        """End Meltano and what it has started."""
        with contextlib.suppress(AttributeError, ProcessLookupError):
            self.meltano.send_sigterm()


class Load(MeltanoOperator):
    """Loads one shard of the accounts, as the plan says."""

    def __init__(self, *, shape: dict[str, Any], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.shape = shape

    def execute(self, context: Any) -> None:  # noqa: ANN401
        """Check that this worker has the accounts of the plan, and load."""
        shape, env = self.shape, read_environment()
        context["shard"] = shape["shard"]  # for map_index_template
        verified_accounts(shape, env)
        suffix = shape["shard"].replace("/", "-of-")
        errors = self.execute_meltano(
            shape,
            env
            | {
                "TAP_BALANCE_SHARD": shape["shard"],
                "TAP_BALANCE_SNAPSHOT_AT": shape["snapshot_at"],
                "TAP_BALANCE_SNAPSHOT_INTERVAL": shape["interval"],
            },
            f"--state-id-suffix=shard-{suffix}",
            "tap-balance",
            shape["loader"],
        )
        if not errors or set(self.meltano.exit_codes) == {"extractors"}:
            context["ti"].xcom_push(key="written", value=True)
        if errors:
            raise failure(f"shard {shape['shard']}", errors)


class Dbt(MeltanoOperator):
    """Runs dbt's `build`."""

    def execute(self, context: Any) -> None:  # noqa: ANN401, ARG002
        """Build and test the models."""
        options = read_options()
        env = read_environment() | {"DBT_SNAPSHOT_INTERVAL_SECONDS": str(settings.MINUTES * 60)}
        if errors := self.execute_meltano(options, env, f"{options['dbt']}:build"):
            raise failure("dbt", errors)


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
    keys = [
        f"{name}@{shape['snapshot_at']}" for name in verified_accounts(shape, read_environment())
    ]
    # For databases without an index: a partition's worth. The target's time zone may shift it.
    since = datetime.fromisoformat(shape["snapshot_at"][:-1]) - timedelta(days=1)
    missing = set(keys)
    for first in range(0, len(keys), 5000):
        part = keys[first : first + 5000]
        sql = f"SELECT snapshot_id FROM {shape['table']} WHERE snapshot_at > ? AND snapshot_id IN "  # noqa: S608
        missing -= {
            key for (key,) in query(f"{sql}({', '.join('?' * len(part))})", str(since), *part)
        }
    if missing:
        for key in sorted(missing):
            log.error("No row %s", key)
        raise failure(f"{len(missing)} of {len(keys)} rows are missing", sorted(missing))
    log.info("All %d accounts have a row of %s", len(keys), shape["snapshot_at"])


def alert(context: Mapping[str, Any]) -> None:
    """Report the accounts whose state has changed since it was last reported.

    Raises:
        AirflowFailException: An account came into trouble, and there are no notifiers.
    """
    name = "tap_balance_reported"
    reported: dict[str, str] = Variable.get(name, default={}, deserialize_json=True)
    sql = "SELECT alert_id, severity, state, message FROM "
    rows = query(sql + read_options()["alerts"] + " ORDER BY severity, alert_id")
    current = {key: (severity, text) for key, severity, state, text in rows if state != "over"}
    for severity, text in current.values():
        log.log(logging.ERROR if severity == "error" else logging.WARNING, "%s", text)
    new = {key: entry for key, entry in current.items() if key not in reported}
    over = [f"resolved: {text}" for key, text in reported.items() if key not in current]
    if lines := [text for _, text in new.values()] + over:
        notify(
            context,
            "\n".join(lines[:SHOWN] + [f"and {len(lines) - SHOWN} more"] * (len(lines) > SHOWN)),
        )
    # Only now: a message that could not be sent is sent by the retry, or by the next run.
    Variable.set(name, {key: text for key, (_, text) in current.items()}, serialize_json=True)
    errors = [text for severity, text in new.values() if severity == "error"]
    if errors and not settings.notifiers():
        raise AirflowFailException("; ".join(errors[:SHOWN]))


def notify(context: Mapping[str, Any], message: str) -> None:
    """Send a message through all notifiers, then fail if one of them could not."""
    told = {**context, "message": message, "subject": message.splitlines()[0]}
    errors = []
    for notifier in settings.notifiers():
        try:
            notifier.render_template_fields(told)
            notifier.notify(told)
        except Exception as error:  # noqa: BLE001, PERF203 - the others must still be sent
            errors.append(f"{type(notifier).__name__}: {error}")
    if errors:
        raise failure("notifiers", errors)


def notify_failure(context: Mapping[str, Any]) -> None:
    """Send the exception of a task that has failed."""
    notify(context, f"{context['ti'].dag_id}.{context['ti'].task_id}: {context['exception']}")
