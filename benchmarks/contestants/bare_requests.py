"""The same with `requests`: one session, 32 threads, and a line of JSON for each response."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import requests

WORKERS = 32


def main(config: dict[str, Any]) -> None:
    url = config["base_url"] + "/v1/balance"
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=WORKERS))

    def fetch(entry: dict[str, Any]) -> dict[str, Any]:
        with session.get(url, auth=(entry["dev_key"], entry["dev_secret"])) as response:
            response.raise_for_status()
            return {"account": entry["account"], **response.json()}

    with ThreadPoolExecutor(WORKERS) as pool:
        for future in as_completed([pool.submit(fetch, entry) for entry in config["accounts"]]):
            sys.stdout.write(json.dumps(future.result()) + "\n")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
