"""The SCHEMA line keeps what a decimal column is made from, with the newest singer-sdk too.

The SDK's own `Schema` class drops `precision` and `scale`; the message writer puts them back.
Without them Snowflake makes a NUMBER(38,0), and 12.3456 is 12.
With the pinned SDK, `test_process.py` looks at the whole line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from parts import NO_PROXY, ROOT

from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from tap_balance.sandbox import Sandbox

pytestmark = pytest.mark.e2e
UV = ROOT / ".venv" / "bin" / "uv"
KEPT = "precision 38, scale 4"


def newest(venv: Path, *requirements: str) -> Path:
    """Install the tap with the newest of all that it depends on; return the interpreter."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--python", venv, ".", *requirements],
        cwd=ROOT,
        check=True,
    )
    return venv / "bin" / "python"


def schema_line(python: str | Path, sandbox: Sandbox, folder: Path) -> tuple[str, str]:
    """Run the tap with another interpreter.

    Returns:
        The SDK's version, and what the SCHEMA line says of the decimals.
    """
    config = folder / "config.json"
    config.write_text(json.dumps(settings_of(sandbox.url, "example", "otp")))
    version = subprocess.run(
        [python, "-c", "from importlib.metadata import version; print(version('singer-sdk'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    done = subprocess.run(
        [python, "-m", "tap_balance", "--config", config],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | NO_PROXY,
    )
    assert done.returncode == 0, done.stderr
    properties = json.loads(done.stdout.splitlines()[0])["schema"]["properties"]
    said = {
        f"precision {properties[name].get('precision')}, scale {properties[name].get('scale')}"
        for name in ("balance", "gift_balance", "total_balance")
    }
    return f"singer-sdk {version.stdout.strip()}", "; ".join(sorted(said))


def test_the_newest_sdk(
    sandbox: Sandbox, tmp_path: Path, stored: dict[tuple[str, str], str]
) -> None:
    sdk, words = schema_line(newest(tmp_path / "venv"), sandbox, tmp_path)
    stored["SCHEMA line", f"{sdk} (newest)"] = words
    assert words == KEPT


def test_the_newest_pre_release_of_the_sdk_is_looked_at(
    sandbox: Sandbox, tmp_path: Path, stored: dict[tuple[str, str], str]
) -> None:
    """A pre-release may break the tap without failing CI; the printed table warns."""
    try:
        python = newest(tmp_path / "venv", "singer-sdk>=0.55.0a0")
        sdk, words = schema_line(python, sandbox, tmp_path)
    except (AssertionError, LookupError, ValueError, subprocess.SubprocessError) as error:
        sdk, words = "newest singer-sdk", f"{type(error).__name__}"
    stored["SCHEMA line", f"{sdk} (pre-release)"] = words if words == KEPT else f"WARNING: {words}"
