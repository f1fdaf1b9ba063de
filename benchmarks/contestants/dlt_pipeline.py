"""dlt: one deferred call per account, 32 workers, JSON Lines files as the destination."""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

WORKERS = 32

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    folder = tempfile.mkdtemp(dir=sys.argv[2])
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "EXTRACT__WORKERS": str(WORKERS),
        "EXTRACT__MAX_PARALLEL_ITEMS": str(WORKERS),
        "DLT_DATA_DIR": folder,
        "DESTINATION__FILESYSTEM__BUCKET_URL": f"file://{folder}/out",
    }
    import dlt  # noqa: PLC0415
    from dlt.sources.helpers import requests  # noqa: PLC0415

    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    url = config["base_url"] + "/v1/balance"

    @dlt.defer  # type: ignore[untyped-decorator]
    def ask(entry: dict[str, Any]) -> dict[str, Any]:
        pair = base64.b64encode(f"{entry['dev_key']}:{entry['dev_secret']}".encode()).decode()
        response = requests.get(url, headers={"Authorization": f"Basic {pair}"})
        return {"account": entry["account"], **response.json()}

    @dlt.resource(  # type: ignore[untyped-decorator]
        name="balance", write_disposition="append"
    )
    def balance() -> Iterator[Any]:
        for entry in config["accounts"]:
            yield ask(entry)

    pipeline = dlt.pipeline("bench", destination="filesystem", dataset_name="bench")
    pipeline.run(balance(), loader_file_format="jsonl")


if __name__ == "__main__":
    main()
