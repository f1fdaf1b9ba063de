"""How a contestant is measured: against a server of the benchmark's own, in turn with others."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv" / "bin"
VENVS = ROOT / ".venvs"


@dataclass(frozen=True)
class Sample:
    """One run of one contestant."""

    status: int
    wall: float
    cpu: float
    peak: float
    """MiB"""
    requests: int
    connections: int
    state: int
    """Bytes of the last STATE line."""
    schemas: int
    stderr: int


@dataclass
class Server:
    """The API, as a process."""

    url: str
    ca: Path | None

    def counters(self) -> dict[str, int]:
        # A new connection each time, so that the count of the others is right.
        context = None
        if self.ca:
            import ssl  # noqa: PLC0415

            context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(f"{self.url}/counters", context=context) as answer:
            counted: dict[str, int] = json.load(answer)
            return counted


@contextmanager
def serving(folder: Path, *options: str, tls: bool = False) -> Iterator[Server]:
    ca = folder / "ca.pem" if tls else None
    command: list[str | Path] = [VENV / "python", ROOT / "benchmarks" / "server.py", *options]
    if ca:
        command += ["--tls", str(ca)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Server(process.stdout.readline().strip(), ca)
        process.stdin.close()


def write_config(folder: Path, url: str, count: int, **more: object) -> Path:
    path = folder / "config.json"
    entries = [
        {"account": f"a{number}", "dev_key": f"key-{number}", "dev_secret": "fake-secret"}
        for number in range(count)
    ]
    path.write_text(json.dumps({"base_url": url, "accounts": entries, **more}), encoding="utf-8")
    return path


def run(
    command: Sequence[object], server: Server | None = None, env: Mapping[str, str] | None = None
) -> Sample:
    """Run a contestant to its end and measure it."""
    if server:
        server.counters()
    proxies = {"HTTP_PROXY": "", "HTTPS_PROXY": "", "ALL_PROXY": "", "NO_PROXY": "*"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=err,
            env=os.environ | proxies | dict(env or {}),
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().splitlines()
        size = err.tell()
        if process.returncode:
            err.seek(0)
            sys.stderr.write(err.read()[-1000:].decode(errors="replace"))
    states = [line for line in lines if line.startswith(b'{"type":"STATE"')]
    counted = server.counters() if server else {"requests": 0, "connections": 0}
    return Sample(
        status=process.returncode,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss / 1024,
        requests=counted["requests"],
        connections=counted["connections"],
        state=len(states[-1]) if states else 0,
        schemas=sum(line.startswith(b'{"type":"SCHEMA"') for line in lines),
        stderr=size,
    )


def in_turn(
    rounds: int, contestants: Mapping[str, Callable[[], Sample]]
) -> dict[str, list[Sample]]:
    """Run all contestants one after the other, N times."""
    taken: dict[str, list[Sample]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            taken[name].append(measure())
    return taken


def ratio(taken: Mapping[str, Sequence[Sample]], one: str, other: str, what: str = "wall") -> float:
    pairs = zip(taken[one], taken[other], strict=True)
    return float(statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs))
