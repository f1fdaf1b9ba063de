"""A Chromium or Chrome that can be driven on this machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from parts import ROOT
from system_programs import apt_install, find_program, report_missing

if TYPE_CHECKING:
    from collections.abc import Iterator

# Chrome comes first: on Ubuntu, chromium is a snap, which cannot read the files of a test.
NAMES = (
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chromium",
    "chromium-browser",
    "chromium-headless-shell",
)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
DOWNLOAD_PATIENCE = 240
"""Seconds for Playwright to download its own Chromium."""

PRINT_ITS_PATH = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""
PLAYWRIGHT = ROOT / ".venvs" / "browser" / "bin"
# Playwright's own browser is kept in the virtual environment, which `make clean` removes.
IN_THE_VENV = {"PLAYWRIGHT_BROWSERS_PATH": "0", "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000"}


def require_chromium() -> str:
    """Return the path of the first that works, or skip the test (in CI: fail it)."""
    if chosen := os.environ.get("CHROMIUM"):
        if not works(chosen):
            pytest.fail(f"CHROMIUM={chosen} does not open a page", pytrace=False)
        return chosen
    return next(filter(works, candidates()), None) or report_missing(
        "Chromium is missing: install it (Debian's package is chromium), "
        "or set CHROMIUM to the path of a Chromium or Chrome"
    )


def candidates() -> Iterator[str]:
    """Where to look, in order; what has to be installed first is installed when it is reached."""
    yield from (path for name in NAMES if (path := find_program(name)))
    if path := playwrights_own():
        yield path
    if apt_install("chromium") and (path := find_program("chromium")):
        yield path


def playwrights_own() -> str | None:
    """Let Playwright download its Chromium, where its host can be reached."""
    environment = os.environ | IN_THE_VENV
    try:
        done = subprocess.run(
            [PLAYWRIGHT / "playwright", "install", "chromium"],
            check=False,
            capture_output=True,
            timeout=DOWNLOAD_PATIENCE,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return None
    return subprocess.run(
        [
            PLAYWRIGHT / "python",
            "-c",
            PRINT_ITS_PATH,
        ],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout.strip()


def works(chromium: str) -> bool:
    """Open a page: one may lack a library of the system, or the right to read a test's files."""
    with tempfile.TemporaryDirectory(prefix="tap-balance-") as folder:
        page = Path(folder) / "page.html"
        page.write_text("<p>can be read</p>", encoding="utf-8")
        try:
            done = subprocess.run(
                [
                    chromium,
                    *OPTIONS,
                    f"--user-data-dir={folder}/profile",
                    "--dump-dom",
                    page.as_uri(),
                ],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return "can be read" in done.stdout
