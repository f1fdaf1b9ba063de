"""The command `tap-balance` as a process: how it is started, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parts import NO_PROXY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NO_CA = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"), "")


@dataclass(frozen=True)
class Run:
    """What one run of the tap left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [message["record"] for message in self.of_type("RECORD")]

    @property
    def errors(self) -> list[str]:
        lines = self.stderr.splitlines()
        return [line.split(" | ", 3)[3] for line in lines if "| ERROR " in line]


def run_in(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *arguments: str,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run it to its end, with its config in this folder."""
    command = [sys.executable, "-m", "tap_balance", *arguments]
    if config is not None:
        path = folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        command += ["--config", str(path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env=os.environ | NO_PROXY | dict(env or {}),
    )
    return Run(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(settings: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start it, with its config in this folder, and end it where the test does not."""
    config = folder / "config.json"
    config.write_text(json.dumps(settings))
    with subprocess.Popen(
        [sys.executable, "-m", "tap_balance", "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
