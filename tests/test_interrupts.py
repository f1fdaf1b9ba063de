"""Runs that end before their time: signals, readers that go away, a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import FaultServer, http
from tap_process import started

from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Tally

    from tap_balance.sandbox import Sandbox

pytestmark = pytest.mark.slow

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


def many(sandbox: Sandbox, count: int) -> dict[str, Any]:
    settings = settings_of(sandbox.url, "example")
    (account,) = settings["accounts"]
    settings["accounts"] = [account | {"account": f"a{number}"} for number in range(count)]
    return settings


def run_into_a_full_disk(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        return subprocess.run(
            [sys.executable, "-m", "tap_balance", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )


def test_a_full_disk_is_a_line_and_status_1(sandbox: Sandbox, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings_of(sandbox.url, "example")))
    run = run_into_a_full_disk("--config", config)
    assert run.returncode == 1
    assert "cannot write to stdout (No space left on device)" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("argument", ["--discover", "--about", "--version"])
def test_a_full_disk_is_a_line_for_every_command(argument: str) -> None:
    run = run_into_a_full_disk(argument)
    assert run.returncode == 1
    assert "stdout cannot be written (No space left on device)." in run.stderr


def test_a_closed_stdout_is_a_line() -> None:
    run = subprocess.run(
        ["sh", "-c", '"$0" -m tap_balance --discover >&-', sys.executable],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("stdout is closed")


def test_an_unbuffered_run_into_a_pipe_that_does_not_block_loses_nothing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(many(sandbox, 600)))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(
        [sys.executable, "-m", "tap_balance", "--config", config],
        stdout=writing,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        os.close(writing)
        time.sleep(2)
        with open(reading, encoding="utf-8") as pipe:  # noqa: PTH123
            kinds = [json.loads(line)["type"] for line in pipe]
        assert process.wait(30) == 0
    assert kinds == ["SCHEMA", *["RECORD"] * 600, "STATE"]


def test_a_reader_that_goes_away_is_a_line_and_status_1(sandbox: Sandbox, tmp_path: Path) -> None:
    with started(settings_of(sandbox.url, "example"), tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(60) == 1
    assert "the target has probably ended" in stderr
    assert "Traceback" not in stderr


@pytest.fixture
def stuck_server() -> Iterator[str]:
    """A server that takes a request and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        held = []
        thread = threading.Thread(target=lambda: held.append(server.accept()))
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        socket.create_connection(server.getsockname()).close()  # a signal may come before the tap
        thread.join()
        for connection, _ in held:
            connection.close()


@dataclass(frozen=True)
class Interrupted:
    """What a run that a signal ended left behind."""

    messages: list[dict[str, Any]]
    seconds: float
    """From the signal to the end."""


def interrupted(
    settings: dict[str, Any],
    folder: Path,
    end: tuple[signal.Signals, int],
    waits: Callable[[], object] = lambda: True,
) -> Interrupted:
    """Send a signal to a run whose last account gets no answer, and check how it ends.

    Args:
        settings: The tap's settings.
        folder: For the config.
        end: The signal, and the status that has to follow.
        waits: Tells whether the tap has come to the point at which to end it.
    """
    signum, status = end
    with started(settings, folder) as process:
        assert process.stdout is not None
        # The SCHEMA, and the records of all accounts but the last.
        lines = [process.stdout.readline() for _ in settings["accounts"]]
        while not waits():
            time.sleep(0.01)
        time.sleep(0.3)
        asked = time.monotonic()
        os.kill(process.pid, signum)
        rest, stderr = process.communicate(timeout=30)
        seconds = time.monotonic() - asked
    assert process.returncode == status
    messages = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    records = ["RECORD"] * (len(settings["accounts"]) - 1)
    assert [message["type"] for message in messages] == ["SCHEMA", *records, "STATE"]
    assert f"terminated by {signum.name}" in stderr
    assert "Traceback" not in stderr
    return Interrupted(messages, seconds)


def ending_with(base_url: str, sandbox: Sandbox, *, alone: bool) -> dict[str, Any]:
    """Settings of an account at this address, alone or behind one that is well."""
    last = {"account": "last", "dev_key": "k", "dev_secret": "s", "base_url": base_url}
    settings = settings_of(sandbox.url, "example")
    settings["accounts"] = [last] if alone else [*settings["accounts"], last]
    return settings


@pytest.mark.parametrize("end", SIGNALS)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "behind another account"])
def test_a_signal_ends_a_request_in_flight_and_the_state_is_out(
    sandbox: Sandbox,
    stuck_server: str,
    tmp_path: Path,
    end: tuple[signal.Signals, int],
    alone: bool,  # noqa: FBT001
) -> None:
    run = interrupted(ending_with(stuck_server, sandbox, alone=alone), tmp_path, end)
    assert run.seconds < 5
    if not alone:
        bookmark = run.messages[-1]["value"]["bookmarks"]["balance"]
        assert bookmark["replication_key_value"] == run.messages[1]["record"]["snapshot_at"]


@pytest.mark.parametrize("end", SIGNALS)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "behind another account"])
def test_a_retry_that_waits_a_minute_stops_at_once(
    sandbox: Sandbox,
    tmp_path: Path,
    tally: Tally,
    end: tuple[signal.Signals, int],
    alone: bool,  # noqa: FBT001
) -> None:
    with FaultServer([http(429, headers={"Retry-After": "60"})]) as server:
        settings = ending_with(f"http://127.0.0.1:{server.port}", sandbox, alone=alone)
        run = interrupted(settings, tmp_path, end, waits=lambda: server.requests)
    tally.stops.append(run.seconds)
    assert run.seconds < 10
    assert len(server.requests) == 1


def fill_the_pipe(process: subprocess.Popen[str]) -> None:
    """Read nothing, until the tap waits for room in the pipe."""
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    before = -1
    while (ticks := cpu_ticks(process.pid)) != before:
        before = ticks
        time.sleep(1)


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123
        return sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))


@contextmanager
def ended_with_a_full_pipe(
    sandbox: Sandbox, folder: Path, *signals: signal.Signals
) -> Iterator[subprocess.Popen[str]]:
    """Send signals, 50 ms apart, to a run that waits for room in its pipe."""
    with started(many(sandbox, 600), folder) as process:
        fill_the_pipe(process)
        for signum in signals:
            os.kill(process.pid, signum)
            time.sleep(0.05)
        yield process


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGTERM], 143),
        # Meltano's group gets a SIGINT, and then the tap its SIGTERM.
        ([signal.SIGINT, signal.SIGTERM, signal.SIGTERM], 130),
    ],
    ids=["SIGTERM", "SIGINT, SIGTERM, SIGTERM"],
)
def test_a_slow_reader_gets_whole_messages_and_a_state_for_them(
    sandbox: Sandbox, tmp_path: Path, signals: list[signal.Signals], status: int
) -> None:
    with ended_with_a_full_pipe(sandbox, tmp_path, *signals) as process:
        time.sleep(0.5)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == status
    messages = [json.loads(line) for line in stdout.splitlines()]
    kinds = [message["type"] for message in messages]
    records = kinds.count("RECORD")
    assert kinds == ["SCHEMA", *["RECORD"] * records, "STATE"]
    assert 0 < records < 600
    bookmark = messages[-1]["value"]["bookmarks"]["balance"]
    assert bookmark["replication_key_value"] == messages[1]["record"]["snapshot_at"]
    assert f"terminated by {signals[0].name}" in stderr


def test_a_reader_that_is_stuck_for_ever_does_not_keep_the_tap(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with ended_with_a_full_pipe(sandbox, tmp_path, signal.SIGTERM) as process:
        assert process.wait(60) == 143


def test_a_second_signal_after_two_seconds_ends_it_on_the_spot(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with ended_with_a_full_pipe(sandbox, tmp_path, signal.SIGINT) as process:
        time.sleep(2.2)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(5) == 130


def test_an_account_that_was_refused_before_the_signal_is_named(
    sandbox: Sandbox, stuck_server: str, tmp_path: Path
) -> None:
    settings = settings_of(sandbox.url, "expired")
    hanging = {"account": "last", "dev_key": "k", "dev_secret": "s", "base_url": stuck_server}
    settings["accounts"].append(hanging)
    with started(settings, tmp_path) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).count("account 'expired': HTTP 401"):
            assert line
        os.kill(process.pid, signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 143
    assert [json.loads(line)["type"] for line in stdout.splitlines()] == ["SCHEMA", "STATE"]
    assert "terminated by SIGTERM" in stderr
    assert "account 'last'" not in stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_secret(tmp_path: Path, end: signal.Signals) -> None:
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    account = {"account": "a", "dev_key": "k", "dev_secret_file": str(pipe)}
    with started({"accounts": [account]}, tmp_path) as process:
        assert process.stderr is not None
        assert "tap-balance v" in process.stderr.readline()
        time.sleep(0.5)  # until it waits for a writer
        os.kill(process.pid, end)
        assert process.wait(10) == -end


def test_a_secret_may_come_through_a_pipe(sandbox: Sandbox, tmp_path: Path) -> None:
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    settings = settings_of(sandbox.url, "example")
    (account,) = settings["accounts"]
    secret = account.pop("dev_secret")
    account["dev_secret_file"] = str(pipe)
    with started(settings, tmp_path) as process:
        pipe.write_text(secret)
        assert process.wait(30) == 0
