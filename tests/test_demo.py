"""`make demo`, as a process."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from runners import demo

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]


def _servers() -> list[str]:
    """The command lines of the demo's Postgres and Meltano processes that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if (
            str(ROOT / "demo-output" / "postgres") in command
            or str(ROOT / "demo" / "demo.py") in command
        ):
            found.append(command)
    return found


def test_the_demo_shows_types_and_rows_and_leaves_nothing_running() -> None:
    with demo("demo.py") as process:
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert stderr == ""
    assert "numeric                     |        38 |     4" in stdout
    assert "(6 rows)" in stdout
    announced = re.findall(r"account drained is (\w+): ", stdout)
    assert announced == ["low", "critical", "empty"]
    page = (ROOT / "demo-output" / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == 4
    rows = (ROOT / "demo-output" / "balance.csv").read_text().splitlines()
    assert len(rows) == 7
    assert _servers() == []


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_stops_what_it_started(signum: signal.Signals, status: int) -> None:
    with demo("demo.py") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Starting a Postgres"):
            assert process.poll() is None
        time.sleep(1)
        assert _servers() != []
        process.send_signal(signum)
        process.communicate(timeout=60)
    assert process.returncode == status
    assert _servers() == []
