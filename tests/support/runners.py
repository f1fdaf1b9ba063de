"""What starts the tap and a target: a plain pipe, or Meltano.

The processes are the real ones; only the tap's clock is the test's (`tap_at.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meltano_project
import yaml
from parts import MELTANO, PATIENCE, QUIET, REAL_SNOWFLAKE, ROOT, SUPPORT
from snowflake_target import Snowflake

from tap_balance.sandbox import SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from targets import Load, Target
    from typing_extensions import Self


class Running:
    """A load that was started. Leaving its context kills what is still there of it."""

    def __init__(self, *processes: subprocess.Popen[bytes], log: Path) -> None:
        self._processes = processes
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def has_ended(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end, `patience` seconds at most.

        Returns:
            0 if all of its processes did well, else the status of the first that did not.
        """
        deadline = time.monotonic() + patience
        statuses = [
            process.wait(max(deadline - time.monotonic(), 0.1)) for process in self._processes
        ]
        return next((status for status in statuses if status), 0)

    def kill(self) -> None:
        """End it at once, as an out-of-memory killer or a power cut would."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Runner(ABC):
    """What starts the tap and a target."""

    @abstractmethod
    def start(self, target: Target, load: Load) -> Running:
        """Start a load."""


@dataclass
class Pipe(Runner):
    """`tap-balance ... | target-...`.

    Attributes:
        folder: For configs, catalogs and logs.
    """

    folder: Path
    _catalog: dict[str, Any] = field(default_factory=dict)

    def start(self, target: Target, load: Load) -> Running:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        tap: list[str | Path] = [sys.executable, SUPPORT / "tap_at.py"]
        tap += ["--config", folder / "tap.json"]
        (folder / "tap.json").write_text(json.dumps(load.settings), encoding="utf-8")
        (folder / "target.json").write_text(json.dumps(target.config(load)), encoding="utf-8")
        if load.without:
            (folder / "catalog.json").write_text(json.dumps(self._without(load.without)))
            tap += ["--catalog", folder / "catalog.json"]
        environment = os.environ | QUIET | load.clock | target.environment()
        log = folder / "log"
        with log.open("wb") as file:
            first = subprocess.Popen(
                tap,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
            second = subprocess.Popen(
                [*target.command, "--config", folder / "target.json"],
                stdin=first.stdout,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        assert first.stdout is not None
        first.stdout.close()
        return Running(second, first, log=log)

    def _without(self, column: str) -> dict[str, Any]:
        if not self._catalog:
            # Discovery asks nobody; any settings that are right will do.
            settings = {"account": "a", "dev_key": "k", "dev_secret": "s"}
            path = self.folder / "discovery.json"
            path.write_text(json.dumps(settings))
            discovered = subprocess.run(
                [sys.executable, "-m", "tap_balance", "--discover", "--config", path],
                check=True,
                capture_output=True,
            )
            self._catalog = json.loads(discovered.stdout)
        catalog: dict[str, Any] = json.loads(json.dumps(self._catalog))
        for entry in catalog["streams"][0]["metadata"]:
            if entry["breadcrumb"] == ["properties", column]:
                entry["metadata"]["selected"] = False
        return catalog


class Meltano(Runner):
    """`meltano run tap-balance target-...`, with this repository's meltano.yml.

    Its project is a copy that shares the installed plugins and has a state of its own; there the
    tap's executable has the test's clock, and target-snowflake's finds the emulator.

    Args:
        project: Folder for the project.
        env: Variables for all its commands.
    """

    def __init__(self, project: Path, env: Mapping[str, str] | None = None) -> None:
        self._project = project
        self._environment = os.environ | QUIET | dict(env or {})
        meltano_project.make(project)
        described = yaml.safe_load((project / "meltano.yml").read_text(encoding="utf-8"))
        for kind in ("extractors", "loaders"):
            for plugin in described["plugins"][kind]:
                name = plugin["name"]
                python = ROOT / ".meltano" / kind / name / "venv" / "bin" / "python"
                script = {"tap-balance": "tap_at"}
                if not REAL_SNOWFLAKE:
                    script["target-snowflake"] = "target_snowflake_at"
                if name in script:
                    path = project / name
                    path.write_text(f'#!/bin/sh\nexec {python} {SUPPORT / script[name]}.py "$@"\n')
                    path.chmod(0o755)
                    plugin["executable"] = str(path)
        (project / "meltano.yml").write_text(yaml.safe_dump(described), encoding="utf-8")
        # Makes the tables of the state store; two first runs at once would both try.
        self.run("state", "list")

    def start(
        self,
        target: Target,
        load: Load,
    ) -> Running:
        settings = dict(load.settings)
        if "accounts" in settings:
            settings["accounts"] = json.dumps(settings["accounts"])
        environment = self._environment | load.clock
        environment |= {f"TAP_BALANCE_{key.upper()}": str(settings[key]) for key in settings}
        if load.without:
            environment["TAP_BALANCE__SELECT"] = json.dumps(["*.*", f"!balance.{load.without}"])
        prefix = target.plugin.replace("-", "_").upper()
        for key, value in target.config(load).items():
            environment[f"{prefix}_{key.upper()}"] = str(value)
        # PGTZ is not among these: meltano.yml has to set it.
        if isinstance(target, Snowflake):
            environment |= target.environment()
        log = Path(tempfile.mkstemp(dir=self._project, prefix="log-")[1])
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    MELTANO,
                    "--environment=prod",
                    "run",
                    # The plugins are shared with this repository, and maybe with other tests.
                    "--no-install",
                    # A killed run blocks those of its state for minutes; another test's not.
                    f"--state-id-suffix={target.name}",
                    *(["--force"] if load.after_kill else []),
                    "tap-balance",
                    target.plugin,
                ],
                cwd=self._project,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        return Running(process, log=log)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run another of its commands and return what it prints.

        Raises:
            CalledProcessError: It failed; holds what it printed.
        """
        return subprocess.run(
            [MELTANO, *arguments],
            cwd=self._project,
            check=True,
            capture_output=True,
            text=True,
            env=self._environment | dict(env or {}),
            timeout=PATIENCE,
        ).stdout


@dataclass(frozen=True)
class Destination:
    """A target, and the way that it is started.

    Attributes:
        label: What the printed table calls it.
    """

    label: str
    target: Target
    runner: Runner

    def load(self, load: Load) -> int:
        """Run the pipeline to its end and return its status."""
        with self.runner.start(self.target, load) as running:
            status = running.wait()
            print(running.output)  # noqa: T201 - pytest shows it if the test fails
            assert SECRET not in running.output
            return status


@contextmanager
def demo(
    script: str, env: Mapping[str, str] | None = None, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Start one of the demos, and end it where the test fails."""
    with subprocess.Popen(
        [sys.executable, ROOT / "demo" / script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(env or {}),
    ) as process:
        try:
            yield process
        finally:
            process.kill()
