"""What a test does on a machine that lacks a program of the operating system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import chromium
import pytest
from system_programs import require_program

if TYPE_CHECKING:
    from pathlib import Path

NO_PROGRAM = "no-such-program"
READS_THE_PAGE = '#!/bin/sh\nfor last; do :; done\nexec cat "${last#file://}"\n'
CANNOT_START = "#!/bin/sh\necho 'libnss3.so: cannot open shared object file' >&2\nexit 127\n"


@pytest.fixture(autouse=True)
def nothing_can_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(chromium, "PLAYWRIGHT", tmp_path)
    (tmp_path / "playwright").symlink_to("/bin/false")
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def install(path: Path, script: str) -> str:
    path.write_text(script, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_program_is_found_by_the_first_of_its_names(tmp_path: Path) -> None:
    found = install(tmp_path / "second", "#!/bin/sh\n")
    assert require_program(NO_PROGRAM, "second", package="none") == found


def test_what_is_missing_is_skipped_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(
        pytest.skip.Exception, match=r"^no-such-program is missing: .* package none"
    ):
        require_program(NO_PROGRAM, package="none")


def test_what_is_missing_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"^no-such-program is missing"):
        require_program(NO_PROGRAM, package="none")


def test_the_first_chromium_that_opens_a_page_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chromium, "NAMES", ("one", "two", "three"))
    install(tmp_path / "one", CANNOT_START)
    works = install(tmp_path / "two", READS_THE_PAGE)
    install(tmp_path / "three", READS_THE_PAGE)
    assert chromium.require_chromium() == works


def test_the_chosen_chromium_is_taken_or_the_test_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMIUM", install(tmp_path / "chosen", READS_THE_PAGE))
    assert chromium.require_chromium() == str(tmp_path / "chosen")
    monkeypatch.setenv("CHROMIUM", install(tmp_path / "broken", CANNOT_START))
    with pytest.raises(pytest.fail.Exception, match=r"broken does not open a page"):
        chromium.require_chromium()


def test_a_machine_without_chromium_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(chromium, "NAMES", (NO_PROGRAM,))
    with pytest.raises(pytest.skip.Exception, match=r"^Chromium is missing: .* CHROMIUM"):
        chromium.require_chromium()
