"""The limit: nothing but requests, 32 at once, and a line of JSON for each answer."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

WORKERS = 32


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    entries: Any,  # noqa: ANN401
) -> None:
    for entry in entries:
        auth = aiohttp.BasicAuth(entry["dev_key"], entry["dev_secret"])
        async with session.get(url, auth=auth) as response:
            response.raise_for_status()
            sys.stdout.write(json.dumps({"account": entry["account"], **await response.json()}))
            sys.stdout.write("\n")


async def main(config: dict[str, Any]) -> None:
    url = config["base_url"] + "/v1/balance"
    entries = iter(config["accounts"])
    connector = aiohttp.TCPConnector(limit=WORKERS)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(ask(session, url, entries) for _ in range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
