"""Runs SQL in Snowflake: JSON lines in, JSON lines out.

Run in a venv with snowflake-connector-python. The first line on stdin says how to connect; each
other is a statement, a JSON string. Each answer is {"rows": [...]} or {"error": "..."}.
Numbers and instants are text, so that nothing is rounded on the way.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import snowflake.connector

connection = None
for line in sys.stdin:
    try:
        if connection is None:
            connection = snowflake.connector.connect(**json.loads(line))
            rows: list[tuple[Any, ...]] = []
        else:
            rows = connection.cursor().execute(json.loads(line)).fetchall()
        answer: dict[str, Any] = {
            "rows": [[None if value is None else str(value) for value in row] for row in rows]
        }
    except snowflake.connector.errors.Error as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
