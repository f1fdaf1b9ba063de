"""What the tasks do besides running Meltano: plan a run, check its rows, report the alerts."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow.sdk import Asset, Connection, Variable
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
    "alerts": "tap_balance_marts.balance_alerts",
}
SHOWN = 20  # lines in a message; the log has all
REPORTED = "tap_balance_reported"  # the Variable with the alerts that people know of
PERMANENT = re.compile("HTTP 40[13]|ermission denied|authentication failed|nsufficient privileges")
SECRET_NAME = re.compile("SECRET|PASSWORD|PASSPHRASE|PRIVATE_KEY|(?:^|_)TOKEN(?:$|_)")
SECRET_VALUE = re.compile(r'://[^:/@\s]*:([^@\s]+)@|"dev_secret": *"((?:[^"\\]|\\.)+)"')

log = logging.getLogger("airflow.task")


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
    (measured with Airflow 3.3.2), so that the hook in meltano.py blanks them out, too.
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
    """List the accounts that are switched on; fail where this worker's are not the plan's.

    Without a retry: it could find a worker with the same wrong file as the plan's, and be green.
    """
    accounts = read_accounts(variables, shape["project"])
    if (found := fingerprint(accounts)) != shape["fingerprint"]:
        msg = (
            f"{socket.gethostname()} has other accounts than the plan of this run: {len(accounts)} "
            f"({found}), planned {shape['accounts']} ({shape['fingerprint']})"
        )
        raise AirflowFailException(msg)
    return [account["account"] for account in accounts if account.get("enabled", True)]


def failure(where: str, lines: Sequence[str]) -> AirflowException:
    """Make a task's exception of the lines with the cause; no retry cures a missing permission."""
    kind = AirflowFailException if all(map(PERMANENT.search, lines)) else AirflowException
    return kind(f"{where} on {socket.gethostname()}: {'; '.join(shortened(lines))}")


def shortened(lines: Sequence[str]) -> list[str]:
    """Cut off what is too much for a message."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {more} more"] if more > 0 else [])]


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
    keys = [f"{name}@{shape['snapshot_at']}" for name in names]
    # For databases without an index: a partition's worth. The target's time zone may shift it.
    since = datetime.fromisoformat(shape["snapshot_at"][:-1]) - timedelta(days=1)
    missing = set(keys)
    for first in range(0, len(keys), 5000):
        part = keys[first : first + 5000]
        sql = f"SELECT snapshot_id FROM {shape['table']} WHERE snapshot_at > ? AND snapshot_id IN "  # noqa: S608
        sql += f"({', '.join('?' * len(part))})"
        missing -= {key for (key,) in query(sql, str(since), *part)}
    if missing:
        for key in sorted(missing):
            log.error("No row %s", key)
        shown = "; ".join(shortened(sorted(missing)))
        msg = f"{len(missing)} of {len(keys)} rows are missing: {shown}"
        raise AirflowFailException(msg)
    log.info("All %d accounts have a row of %s", len(keys), shape["snapshot_at"])


def alert(context: Mapping[str, Any]) -> None:
    """Report the accounts whose state has changed since it was last reported.

    Raises:
        AirflowFailException: An account came into trouble, and there are no notifiers.
    """
    # dbt's own `state` compares with its last build, whose message may not have been sent.
    reported: dict[str, list[str]] = Variable.get(REPORTED, default={}, deserialize_json=True)
    table = read_options()["alerts"]
    current: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    sql = f"SELECT alert_id, account, severity, state, message FROM {table}"  # noqa: S608
    for key, account, severity, state, text in query(sql):
        texts[key] = text
        if state != "over":
            current[key] = [account, severity, text]
            log.log(logging.ERROR if severity == "error" else logging.WARNING, "%s", text)
    new = [key for key in current if key not in reported]
    worse = {current[key][0] for key in new}  # of those, the new message says it all
    over = [k for k, old in reported.items() if k not in current and old[0] not in worse]
    lines = [texts[k] for k in new] + [f"resolved: {texts.get(k, reported[k][2])}" for k in over]
    if lines:
        notify(context, "\n".join(shortened(lines)))
    # Only now: a message that could not be sent is sent by the retry, or by the next run.
    Variable.set(REPORTED, current, serialize_json=True)
    errors = [texts[key] for key in new if current[key][1] == "error"]
    if errors and not settings.notifiers():
        raise AirflowFailException("; ".join(shortened(errors)))


def notify(context: Mapping[str, Any], message: str) -> None:
    """Send a message through all notifiers, then fail if one of them could not."""
    notified = {**context, "message": message, "subject": message.splitlines()[0]}
    errors = []
    for notifier in settings.notifiers():
        try:
            notifier.render_template_fields(notified)
            notifier.notify(notified)
        except Exception as error:  # noqa: BLE001, PERF203 - the others must still be sent
            errors.append(f"{type(notifier).__name__}: {error}")
    if errors:
        raise failure("notifiers", errors)


def notify_failure(context: Mapping[str, Any]) -> None:
    """Send the exception of a task that has failed."""
    notify(context, f"{context['ti'].dag_id}.{context['ti'].task_id}: {context['exception']}")
