"""Print the extra of the connection `tap_balance` in connections.json as lines for a shell."""

import json
import shlex
import sys
from pathlib import Path

connections = json.loads(Path("connections.json").read_text(encoding="utf-8"))
extra = connections["tap_balance"]["extra"]
sys.stdout.writelines(f"{name}={shlex.quote(value)}\n" for name, value in extra.items())
