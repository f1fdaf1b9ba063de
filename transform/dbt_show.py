"""Read rows of the models through dbt, from whatever database the profile points to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TRANSFORM = Path(__file__).resolve().parent
SECRETS = ("APPRISE_URLS",)
"""Environment variables that dbt has no use for."""


def show(dbt: str, sql: str, variables: str) -> list[Row]:
    """Return the rows of a query on the models, with lower-case names of columns.

    The project is the one of DBT_PROJECT_DIR, by default the folder of this file.

    Args:
        dbt: The dbt command.
        sql: The query, with dbt's Jinja; decimals and large integers are best cast to text.
        variables: dbt variables, as YAML or JSON.

    Raises:
        SystemExit: dbt failed; with the output of dbt.
    """
    command = [
        dbt, "--quiet", "show", "--inline", sql, "--limit", "-1", "--output", "json",
        "--vars", variables,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=None if "DBT_PROJECT_DIR" in environment else TRANSFORM,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        sys.exit(f"cannot start {dbt} ({error.strerror}); set --dbt to the dbt command")
    if done.returncode:
        sys.exit(f"dbt cannot read the models:\n{done.stdout}{done.stderr}")
    rows: list[Row] = json.loads(done.stdout[done.stdout.index("{") :])["show"]
    return [{name.lower(): value for name, value in row.items()} for row in rows]
