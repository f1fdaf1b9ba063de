"""`make check-snowflake`: the tests of the destinations, against a real Snowflake account.

Reads SNOWFLAKE_ACCOUNT, _USER, _DATABASE, _WAREHOUSE, optionally _ROLE, and either _PASSWORD or
_PRIVATE_KEY_PATH (with _PRIVATE_KEY_PASSPHRASE). Every test makes a schema of its own in that
database and drops it. The time zone of the user's sessions is set, and UTC at the end, so take a
user that is for this only, with a role that may `ALTER USER` it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ARGUMENTS = {
    "SNOWFLAKE_ACCOUNT": "account",
    "SNOWFLAKE_USER": "user",
    "SNOWFLAKE_DATABASE": "database",
    "SNOWFLAKE_WAREHOUSE": "warehouse",
    "SNOWFLAKE_ROLE": "role",
    "SNOWFLAKE_PASSWORD": "password",
    "SNOWFLAKE_PRIVATE_KEY_PATH": "private_key_file",
    "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "private_key_file_pwd",
}
"""Variable -> argument of snowflake-connector-python."""

SECRETS = ("SNOWFLAKE_PASSWORD", "SNOWFLAKE_PRIVATE_KEY_PATH")


def connection(environment: Mapping[str, str]) -> dict[str, str]:
    """Tell how to connect.

    Raises:
        SystemExit: Something is missing; says what.
    """
    needed = list(ARGUMENTS)[:4]
    missing = [name for name in needed if not environment.get(name)]
    if len([name for name in SECRETS if environment.get(name)]) != 1:
        missing.append(f"one of {' and '.join(SECRETS)}")
    if missing:
        sys.exit(f"check-snowflake: set {', '.join(missing)} in the environment.")
    return {
        argument: environment[name] for name, argument in ARGUMENTS.items() if environment.get(name)
    }


if __name__ == "__main__":
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-k",
        "snowflake",
        "tests/test_destinations.py",
    ]
    done = subprocess.run(
        [*command, *sys.argv[1:]],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"TEST_SNOWFLAKE": json.dumps(connection(os.environ))},
        check=False,
    )
    sys.exit(done.returncode)
