"""Where the installed parts of the end-to-end tests are, and how they are run."""

from __future__ import annotations

import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
LOADERS = ROOT / ".meltano" / "loaders"
VENVS = ROOT / ".venvs"
CONNECTOR_PYTHON = VENVS / "fakesnow" / "bin" / "python"
MELTANO = VENVS / "meltano" / "bin" / "meltano"
REAL_SNOWFLAKE = json.loads(os.environ.get("TEST_SNOWFLAKE", "null"))
"""How to connect to an account; set by check_snowflake.py, else there is the emulator."""

PATIENCE = 300.0 if REAL_SNOWFLAKE else 60.0
"""Seconds after which a load that does not end is killed, and the test fails."""

NO_PROXY = {"HTTP_PROXY": "", "HTTPS_PROXY": "", "ALL_PROXY": ""}
QUIET = NO_PROXY | {
    "MELTANO_CLI_DISABLE_VERSION_CHECK": "1",
    # Nothing listens there: every plugin is defined in meltano.yml or plugins/.
    "MELTANO_HUB_URL": "http://127.0.0.1:9",
}
