"""Snapshots of prepaid balances, every hour: `meltano run` in shards, then what follows from them.

After the load, `check_freshness` fails where an account has no snapshot, `build` makes the dbt
models of how long each balance lasts, and `alert` fails for those that are critical, empty or
stale, with their names and numbers in the message. Callbacks, e-mail and whatever else you have
for a failed task tell it to people.

Copy this file into the DAG folder of an Airflow 3.2 or newer; it is long because it is the only one
to copy. The image that parses it needs neither Meltano nor the tap; the workers of `load`, `build`
and `alert` need a Meltano project with the plugins installed, and the workers of `check_freshness`
the Airflow provider of the destination.

**Catch-up is off, and a past hour cannot be back-filled**: the API tells only the balance of the
moment in which it is asked. A run that is cleared later stores the balances of *now*, in the
interval of now. What was not recorded is gone; `check_freshness` fails so that somebody knows.

Two connections, for example in a secrets backend or as `AIRFLOW_CONN_TAP_BALANCE`:

* `tap_balance` (type Generic): its extra is the environment for Meltano, a JSON object such as
  `{"TAP_BALANCE_ACCOUNTS_FILE": "/run/secrets/accounts.jsonl", "TARGET_POSTGRES_SQLALCHEMY_URL":
  "postgresql+psycopg://..."}`. The tap's `.env.example` lists the variables.
* `tap_balance_destination` (type Postgres, Snowflake, ...): the database that the rows go to.

What is no secret are the constants below. Change them in your copy, or set the environment
variables of their names alike wherever Airflow runs (scheduler, DAG processor, workers).
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow.sdk import DAG, BaseOperator, Connection, Param, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.log import mask_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTES = os.environ.get("TAP_BALANCE_DAG_MINUTES", "60")
"""Minutes from run to run, and of a snapshot interval: the two are one, so that a retry overwrites
its own rows. Divides an hour, or is whole hours that divide a day."""

SHARDS = os.environ.get("TAP_BALANCE_DAG_SHARDS", "1")
"""How many slices the accounts are loaded in, each by a task of its own. A run that is started by
hand can have another number: it is the DAG's parameter `shards`."""

RETRIES = os.environ.get("TAP_BALANCE_DAG_RETRIES", "2")
"""Further tries of a task that failed."""

RETRY_SECONDS = os.environ.get("TAP_BALANCE_DAG_RETRY_SECONDS", "120")
"""Seconds before the first of them; the wait doubles from try to try, up to a sixth of the
interval or five minutes. (Meltano refuses to run for five minutes after it was killed. With what
is set here, the third try comes later.)"""

PROJECT = os.environ.get("TAP_BALANCE_DAG_PROJECT", "/opt/meltano/tap-balance")
"""Folder of `meltano.yml` on the workers."""

MELTANO = os.environ.get("TAP_BALANCE_DAG_MELTANO", "meltano")
"""The command on the workers; best the absolute path into Meltano's own virtual environment."""

LOADER = os.environ.get("TAP_BALANCE_DAG_LOADER", "target-postgres")
"""Meltano's name of the target."""

DBT = os.environ.get("TAP_BALANCE_DAG_DBT", "dbt-postgres")
"""Meltano's name of dbt, for the tasks `build` and `alert`; `none` leaves the two out."""

TABLE = os.environ.get("TAP_BALANCE_DAG_TABLE", "tap_balance.balance")
"""Where the target writes to, as the destination's SQL names it."""

SETTINGS_CONNECTION = "tap_balance"
DESTINATION_CONNECTION = "tap_balance_destination"

MOST_SHARDS = 1024
"""Airflow maps no task more often, unless `[core] max_map_length` allows it."""

GRACE = 3.0
"""Seconds for Meltano to end after a SIGTERM. Airflow kills the task itself after five."""

SHORTEST_SECRET = 5
"""Characters; blanking out less would garble the log, and Airflow masks no less either."""

NAMES_SHOWN = 20
"""Accounts named in the message of a failed check; the log above it names all."""

ALERT = re.compile(r"ALERT \(fail\) (.*)")
"""What the dbt project prints for an account that an alert has found."""

SECRET_NAME = re.compile("SECRET|PASSWORD|PASSPHRASE|PRIVATE_KEY|(?:^|_)TOKEN(?:$|_)")
"""Environment variables whose value is a secret."""

log = logging.getLogger("airflow.task")


def interval_minutes() -> int:
    """Read MINUTES.

    Raises:
        ValueError: No cron expression and no snapshot interval has that length.
    """
    minutes = number("MINUTES", MINUTES, 1, 24 * 60)
    if 60 % minutes and (minutes % 60 or 24 * 60 % minutes):
        msg = (
            "TAP_BALANCE_DAG_MINUTES: must divide 60, or be whole hours that divide a day, such "
            "as 15, 60 or 1440"
        )
        raise ValueError(msg)
    return minutes


def cron(minutes: int) -> str:
    """Write the schedule, whose runs begin when the snapshot intervals do (UTC)."""
    if minutes < 60:  # noqa: PLR2004
        return f"*/{minutes} * * * *"
    return f"0 */{minutes // 60} * * *" if minutes < 24 * 60 else "0 0 * * *"


def number(name: str, text: str, lowest: int, highest: int) -> int:
    """Read one of the constants.

    Raises:
        ValueError: It is no whole number in that range.
    """
    value = int(text) if re.fullmatch("[0-9]{1,6}", text, re.ASCII) else -1
    if not lowest <= value <= highest:
        msg = f"TAP_BALANCE_DAG_{name}: must be a whole number from {lowest} to {highest}"
        raise ValueError(msg)
    return value


def interval_start(instant: datetime) -> str:
    """Find the snapshot interval of an instant, as the tap writes it: "2026-01-31T10:00:00Z"."""
    length = interval_minutes() * 60
    seconds = int(instant.timestamp())
    start = datetime.fromtimestamp(seconds - seconds % length, tz=timezone.utc)
    return start.strftime("%Y-%m-%dT%H:%M:%SZ")


def settings() -> dict[str, str]:
    """Read the environment for Meltano from the connection, and let Airflow mask its secrets.

    Raises:
        AirflowFailException: The connection is not there, or its extra is no such environment.
    """
    where = f"the extra of the connection {SETTINGS_CONNECTION!r}"
    extra = connection(SETTINGS_CONNECTION).extra
    try:
        given = json.loads(extra or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict) or not given:
        msg = f"{where} must be a JSON object with the environment for Meltano; see .env.example"
        raise AirflowFailException(msg)
    variables = {}
    for name, value in given.items():
        if not re.fullmatch("[A-Z][A-Z0-9_]*", name, re.ASCII):
            msg = (
                f"{where}: {name!r} is no environment variable; write the settings as in "
                ".env.example, such as TAP_BALANCE_ACCOUNTS_FILE"
            )
            raise AirflowFailException(msg)
        if value is not None:
            variables[name] = value if isinstance(value, str) else json.dumps(value)
    for secret in secrets_of(variables):
        mask_secret(secret)
    return variables


def secrets_of(variables: Mapping[str, str]) -> list[str]:
    """List the secrets in the environment for Meltano, the longest first.

    Those in an accounts file are not among them: only the tap reads that.
    """
    # By line, because a key in PEM has many, and a log is searched line by line.
    secrets = {
        line
        for name, value in variables.items()
        if SECRET_NAME.search(name)
        for line in value.splitlines()
    }
    for value in variables.values():
        with contextlib.suppress(ValueError):  # it looks like a URL and is none
            password = urlsplit(value).password or ""
            secrets |= {password, unquote(password)}
    accounts = variables.get("TAP_BALANCE_ACCOUNTS", "[]")
    try:
        secrets |= {str(account.get("dev_secret", "")) for account in json.loads(accounts)}
    except (ValueError, TypeError, AttributeError):  # the tap says what is wrong with it
        secrets.add(accounts)
    long_enough = (secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
    return sorted(long_enough, key=len, reverse=True)


def connection(name: str) -> Connection:
    """Look a connection up.

    Raises:
        AirflowFailException: There is none of this name.
    """
    try:
        return Connection.get(name)
    except AirflowException:
        msg = f"there is no Airflow connection {name!r}; add it as this DAG's documentation says"
        raise AirflowFailException(msg) from None


def account_names(variables: Mapping[str, str]) -> list[str]:
    """List the accounts that the load asks, from where the tap takes them.

    Args:
        variables: The environment that Meltano gets.

    Raises:
        AirflowFailException: They cannot be read, or there is none: an empty list would find
            every snapshot fresh.
    """
    variable = "TAP_BALANCE_ACCOUNTS"
    try:
        if path := variables.get("TAP_BALANCE_ACCOUNTS_FILE"):
            variable = "TAP_BALANCE_ACCOUNTS_FILE"
            entries = entries_of(Path(PROJECT, path).read_text(encoding="utf-8-sig"))
        elif variables.get("TAP_BALANCE_DEV_KEY"):
            entries = [{"account": variables.get("TAP_BALANCE_ACCOUNT") or "default"}]
        else:
            entries = json.loads(variables.get(variable) or "[]")
        names = [str(entry["account"]) for entry in entries]
    except OSError as error:
        msg = f"{variable}: cannot be read on this worker ({error.strerror})"
        raise AirflowFailException(msg) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        msg = f"{variable}: is no list of accounts; `tap-balance --test` says where it is wrong"
        raise AirflowFailException(msg) from None
    if not names:
        msg = (
            "no account to check: put TAP_BALANCE_ACCOUNTS_FILE, TAP_BALANCE_ACCOUNTS or "
            f"TAP_BALANCE_DEV_KEY into the extra of the connection {SETTINGS_CONNECTION!r} (this "
            "DAG does not see Meltano's .env)"
        )
        raise AirflowFailException(msg)
    return names


def entries_of(text: str) -> list[Any]:
    """Read an accounts file: a JSON array, or JSON Lines (whose lines end with a newline only)."""
    if text.lstrip().startswith("["):
        entries: list[Any] = json.loads(text)
        return entries
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def accounts_since(start: str) -> set[str]:
    """Ask the destination which accounts have a snapshot.

    It compares the time in the text key: `snapshot_at` is shifted where the target's session was
    not in UTC, and could make an old snapshot look new.

    Args:
        start: Start of the oldest interval that counts, such as "2026-01-31T10:00:00Z".

    Raises:
        AirflowException: The destination does not answer, or has no such table.
    """
    try:
        hook = connection(DESTINATION_CONNECTION).get_hook()
        hook.log_sql = False
        # TABLE is the deployer's own, and no parameter can stand for a table.
        sql = (
            f"SELECT DISTINCT account FROM {TABLE} "  # noqa: S608
            f"WHERE RIGHT(snapshot_id, {len(start)}) >= {hook.placeholder}"
        )
        rows = hook.get_records(sql, parameters=(start,))
    except AirflowException:
        raise
    except Exception as error:  # noqa: BLE001 - each database has exceptions of its own
        reason = " ".join(str(error).split())[:300]
        msg = (
            f"cannot read {TABLE} over the connection {DESTINATION_CONNECTION!r} "
            f"({type(error).__name__}: {reason}); is it the database that {LOADER} loads, has a "
            "load ever succeeded, and may the user read it?"
        )
        raise AirflowException(msg) from None
    return {account for (account,) in rows}


class MeltanoRun(BaseOperator):
    """Runs Meltano, for the tasks that follow.

    The environment never becomes a template field or an argument: Airflow keeps those in its
    database and shows them in its UI.
    """

    template_fields = ()

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self._process: subprocess.Popen[str] | None = None

    def hear(self, line: str) -> None:
        """Take note of a line that Meltano has printed, without its secrets."""

    def run_meltano(self, shard: str, *arguments: str) -> None:
        """Start Meltano and pass its output on to the task's log, without secrets.

        Args:
            shard: i/n: the i-th of n slices; empty where accounts are not asked.
            arguments: Of `meltano run`.

        Raises:
            AirflowFailException: Meltano cannot be started; another try would not help.
            AirflowException: The run failed.
        """
        try:
            variables = environment(settings(), shard)
        except OSError as error:
            msg = (
                f"{error.filename}: {error.strerror}; set TAP_BALANCE_DAG_PROJECT to the folder of "
                "meltano.yml on this worker and run `meltano install` there"
            )
            raise AirflowFailException(msg) from None
        if status := self._run(variables, *arguments):
            what = f"shard {shard}" if shard else " ".join(arguments)
            msg = f"{what}: meltano ended with status {status}; its log is above"
            raise AirflowException(msg)

    def _run(self, variables: Mapping[str, str], *arguments: str) -> int:
        # The shards start at once, and would install a changed plugin over each other. Meltano
        # 4.4.1 does not heed MELTANO_AUTO_INSTALL.
        command = [MELTANO, "run", "--no-install", *arguments]
        log.info("Running %s in %s", " ".join(command), PROJECT)
        try:
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=PROJECT,
                env=dict(variables),
                # Airflow talks to its supervisor over a task's own stdin.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="backslashreplace",
                start_new_session=True,
            )
        except OSError as error:
            hint = (
                "use TAP_BALANCE_ACCOUNTS_FILE for so many accounts"
                if error.errno == errno.E2BIG
                else "check TAP_BALANCE_DAG_MELTANO and TAP_BALANCE_DAG_PROJECT on this worker"
            )
            msg = f"cannot start {MELTANO!r} in {PROJECT!r} ({error.strerror}); {hint}"
            raise AirflowFailException(msg) from None
        self._process = process
        # Nothing here prints a secret. On the day on which something does, Airflow would mask it in
        # the task's log, but not in what the task prints along (measured with Airflow 3.3.2).
        secrets = secrets_of(variables)
        try:
            for line in process.stdout or ():
                log.info("%s", shown := without(secrets, line.rstrip()))
                self.hear(shown)
            return process.wait()
        except BaseException:  # the execution time-out is one
            self.on_kill()
            raise

    def on_kill(self) -> None:
        """End Meltano, the tap and the target; called from a signal handler, too."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        # Without reaping it: until then, no other process can get its number.
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while time.monotonic() < deadline and os.waitid(os.P_PID, process.pid, ended) is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


class Load(MeltanoRun):
    """Runs the pipeline for one shard of the accounts.

    Args:
        shard: i/n: the i-th of n slices.
        kwargs: What every operator takes.
    """

    def __init__(self, *, shard: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.shard = shard

    def execute(self, context: Any) -> str:  # noqa: ANN401
        """Load; raises what `run_meltano` does.

        Returns:
            The shard, by which `check_freshness` knows that it was loaded.
        """
        context["shard"] = self.shard  # for map_index_template
        began = interval_start(datetime.now(tz=timezone.utc))
        context["ti"].xcom_push(key="began", value=began)
        self.run_meltano(self.shard, *pipeline(self.shard))
        return self.shard


class Dbt(MeltanoRun):
    """Runs one of the commands of dbt's plugin.

    Args:
        command: `build` or `alert`.
        kwargs: What every operator takes.
    """

    def __init__(self, *, command: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.command = command
        self.alerts: list[str] = []

    def hear(self, line: str) -> None:
        """Keep what an alert says of an account."""
        if match := ALERT.search(line):
            self.alerts.append(match[1])

    def execute(self, context: Any) -> None:  # noqa: ANN401, ARG002
        """Run the command; raises what `run_meltano` does.

        Raises:
            AirflowFailException: An account needs a person, and no other try.
        """
        try:
            self.run_meltano("", f"{DBT}:{self.command}")
        except AirflowException:
            if not self.alerts:
                raise
        if self.alerts:
            more = len(self.alerts) - NAMES_SHOWN
            shown = "; ".join(self.alerts[:NAMES_SHOWN])
            raise AirflowFailException(f"{shown}; and {more} more" if more > 0 else shown)


def pipeline(shard: str) -> list[str]:
    """Write the arguments of `meltano run` for the load of a shard."""
    return [f"--state-id-suffix={suffix_of(shard)}", "tap-balance", LOADER]


def without(secrets: list[str], line: str) -> str:
    """Blank out secrets in a line."""
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


def shard_folder(system: Path, suffix: str) -> Path:
    """Make the system folder of one shard, with the plugins that are installed in the project's.

    Meltano keeps catalog, state and config of a running plugin in files of fixed names there, so
    that two runs of one plugin overwrite each other's (meltano/meltano#8763). It also keeps its
    SQLite there, which many runs would lock.

    Args:
        system: The project's own system folder.
        suffix: What tells the shards apart.
    """
    folder = system / "shards" / suffix
    # What a killed run has left behind, its config with secrets among it.
    shutil.rmtree(folder / "run", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for plugins in system.iterdir():
        if plugins.is_dir() and plugins.name not in {"logs", "run", "shards"}:
            with contextlib.suppress(FileExistsError):
                (folder / plugins.name).symlink_to(Path("..", "..", plugins.name))
    return folder


def environment(variables: Mapping[str, str], shard: str) -> dict[str, str]:
    """Make the environment of one run; Airflow's own settings and connections stay out of it."""
    inherited = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    given = {**inherited, **variables}
    system = Path(PROJECT, given.get("MELTANO_SYS_DIR_ROOT", ".meltano"))
    defaults = {
        "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
        "MELTANO_ENVIRONMENT": "prod",
        "NO_COLOR": "1",
    }
    return (
        defaults
        | given
        | {
            "MELTANO_SYS_DIR_ROOT": str(shard_folder(system, suffix_of(shard))),
            "TAP_BALANCE_SNAPSHOT_INTERVAL": f"PT{interval_minutes()}M",
            # What is a gap, and when a balance is stale, for dbt.
            "DBT_SNAPSHOT_INTERVAL_SECONDS": str(interval_minutes() * 60),
        }
        | ({"TAP_BALANCE_SHARD": shard} if shard else {})
    )


def suffix_of(shard: str) -> str:
    """Name a shard in state ids and folders: "1/4" is "shard-1-of-4"; dbt's folder is "dbt"."""
    return f"shard-{shard.replace('/', '-of-')}" if shard else "dbt"


with DAG(
    "tap_balance",
    description="Timestamped snapshots of prepaid balances",
    doc_md=__doc__,
    schedule=cron(interval_minutes()),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # A run that hangs must not hold the next one back: its hour cannot be back-filled.
    dagrun_timeout=timedelta(minutes=max(interval_minutes(), 30)),
    # Three tries and their waits fit into an hour.
    default_args={
        "execution_timeout": timedelta(minutes=max(interval_minutes() / 4, 5)),
        "retries": number("RETRIES", RETRIES, 0, 100),
        "retry_delay": timedelta(seconds=number("RETRY_SECONDS", RETRY_SECONDS, 1, 3600)),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=max(interval_minutes() / 6, 5)),
    },
    params={
        "shards": Param(
            number("SHARDS", SHARDS, 1, MOST_SHARDS),
            type="integer",
            minimum=1,
            maximum=MOST_SHARDS,
            description="Slices that the accounts are loaded in, each by a task of its own",
        )
    },
    tags=["meltano", "tap-balance"],
):

    @task
    def shards() -> list[str]:
        """Name the shards of this run: 1/n to n/n."""
        count = get_current_context()["params"]["shards"]
        return [f"{index}/{count}" for index in range(1, count + 1)]

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def check_freshness() -> None:
        """Fail unless every shard was loaded and every account has a snapshot of this run.

        No task follows, so it decides on the run, and it runs when a shard failed too. The loads'
        first interval counts, not the schedule's: a retry may cross the hour, and a run that was
        cleared loads anew.

        Raises:
            AirflowFailException: A shard or an account is missing; each is named.
        """
        pull = get_current_context()["ti"].xcom_pull
        planned = pull(task_ids="shards") or []
        began = [start for start in pull(task_ids=["load"], key="began") if start]
        start = min(began, default=interval_start(datetime.now(tz=timezone.utc)))
        loaded = pull(task_ids=["load"])
        names = account_names(os.environ | settings())
        fresh = accounts_since(start)
        problems = [f"shard {shard} was not loaded" for shard in planned if shard not in loaded]
        if not planned:
            problems = ["no shard was planned"]
        if stale := [name for name in names if name not in fresh]:
            for name in stale:
                log.error("account %r: no snapshot since %s", name, start)
            shown = ", ".join(map(repr, stale[:NAMES_SHOWN]))
            more = f" and {len(stale) - NAMES_SHOWN} more" if len(stale) > NAMES_SHOWN else ""
            problems.append(
                f"{len(stale)} of {len(names)} accounts have no snapshot since {start}: "
                f"{shown}{more}"
            )
        if problems:
            raise AirflowFailException("; ".join(problems))
        log.info("All %d accounts have a snapshot since %s", len(names), start)

    load = Load.partial(task_id="load", map_index_template="{{ shard }}").expand(shard=shards())
    load >> check_freshness()
    if DBT != "none":
        # Also where a shard or a check of the models failed: the other accounts run empty all the
        # same.
        build, alert = (
            Dbt(task_id=step, command=step, trigger_rule=TriggerRule.ALL_DONE)
            for step in ("build", "alert")
        )
        load >> build >> alert
