"""What a demo prints when one of its steps fails."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from steps import run_command, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def printed(demo: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a demo that fails; return what it prints, and check that its exit status is 1."""
    monkeypatch.setattr("meltano_project.forget_the_users_settings", lambda: None)
    with pytest.raises(SystemExit) as ended:
        start(demo)
    first, _, rest = str(ended.value.code).strip().partition("\n")
    assert first == "The demo failed, and everything that was started is stopped."
    return rest


def test_a_command_that_fails_is_named_with_its_last_lines_and_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("from the step before\n", encoding="utf-8")
    command = ["/bin/sh", "-c", "seq 30; echo no such table >&2; exit 3"]
    numbers = [f"  {number}" for number in range(12, 31)]
    expected = [
        "sh -c 'seq 30; echo no such table >&2; exit 3' failed with exit status 3. Its last lines:",
        *numbers,
        "  no such table",
        f"The rest is in {log}.",
    ]
    output = printed(lambda: run_command(command, log, env=os.environ), monkeypatch)
    assert output.splitlines() == expected
    assert len(log.read_text(encoding="utf-8").splitlines()) == 32


def test_a_command_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command: list[str | Path] = [tmp_path / "meltano", "run"]
    assert printed(lambda: run_command(command, tmp_path / "log", env={}), monkeypatch) == (
        f"{tmp_path}/meltano is missing: run `make clean`, then the demo again"
    )


def test_sql_that_fails_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    def query() -> None:
        command = ["/a/long/path/psql", "-c", "SELECT " + "x" * 80]
        raise subprocess.CalledProcessError(2, command, "", "ERROR:  column is missing\n")

    assert printed(query, monkeypatch).splitlines() == [
        f"psql -c 'SELECT {'x' * 73}...' failed with exit status 2. Its last lines:",
        "  ERROR:  column is missing",
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "out"), "Permission denied: out"),
        (OSError(errno.ENOSPC, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(
    error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> None:
        raise error

    assert printed(write, monkeypatch) == expected
