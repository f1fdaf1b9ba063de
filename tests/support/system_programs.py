"""Programs of the operating system that some tests need, and that pip cannot install.

Run by root on Debian or Ubuntu, their packages are installed. Where that does not help, CI fails,
and any other machine skips the tests that need them. CONTRIBUTING.md lists these programs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

APT_PATIENCE = 600
"""Seconds for apt-get to download and install a package."""


def require_program(*names: str, package: str) -> str:
    """Find a program by its names, or skip the test (in CI: fail it).

    Args:
        names: What it is called, the best name first.
        package: The Debian package that contains it.

    Returns:
        Its path.
    """
    found = find_program(*names)
    if not found and apt_install(package):
        found = find_program(*names)
    return found or report_missing(f"{names[0]} is missing: install the package {package}")


def find_program(*names: str) -> str | None:
    """Look on the PATH, and where only root's PATH leads."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def apt_install(package: str) -> bool:
    """Install a Debian package, if this is root on Debian or Ubuntu.

    Returns:
        Whether it is installed now.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    # Another process of this test run may be installing, too.
    with (Path(tempfile.gettempdir()) / "tap-balance-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
                done = subprocess.run(
                    ["apt-get", "-qq", *arguments],
                    check=False,
                    capture_output=True,
                    stdin=subprocess.DEVNULL,
                    timeout=APT_PATIENCE,
                    env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def report_missing(reason: str) -> NoReturn:
    """Skip the test with a reason, which pytest prints at its end; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
