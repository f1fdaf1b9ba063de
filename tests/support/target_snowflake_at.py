"""The unchanged target-snowflake, pointed at another server: SNOWFLAKE_SERVER is its JSON.

The target has no setting for host and port. Run in the target's own venv.
"""

from __future__ import annotations

import json
import os
from typing import Any

from target_snowflake.connector import SnowflakeConnector
from target_snowflake.target import TargetSnowflake

SERVER = json.loads(os.environ["SNOWFLAKE_SERVER"])
connect_args = SnowflakeConnector.get_connect_args


def elsewhere(connector: Any) -> dict[str, Any]:
    return {**connect_args(connector), **{key: SERVER[key] for key in ("host", "port", "protocol")}}


SnowflakeConnector.get_connect_args = elsewhere
TargetSnowflake.cli()
