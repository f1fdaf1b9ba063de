"""How the tasks run Meltano: Airflow's SubprocessHook, and the operators `Load` and `Dbt`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator

from tap_balance_airflow import settings
from tap_balance_airflow.pipeline import (
    failure,
    read_environment,
    read_options,
    secrets_of,
    verified_accounts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

RAISED = re.compile(r"(?:[a-z_]\w*\.)+[A-Z]\w*: .|[A-Z]\w*(?:Error|Exception): .")
"""The line of a target's traceback that names the error."""

DBT_ERROR = re.compile(r"[A-Z]\w+ Error\b|Failure in ")
"""What dbt's first error begins with; the reason is on the next line."""

log = logging.getLogger("airflow.task")


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
        prefix = f"tap-balance-run-{socket.gethostname()}-"
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            # Of a task that was killed, with its secrets.
            if not Path("/proc", left.name.removeprefix(prefix).split("-")[0]).exists():
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-") as folder:
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
