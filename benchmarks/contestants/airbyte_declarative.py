"""airbyte-cdk: a declarative source with one slice per account and 32 workers."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

WORKERS = 32


def manifest(url: str, tokens: list[str]) -> dict[str, object]:
    schema = {"type": "object", "additionalProperties": True, "properties": {}}
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["balance"]},
        "concurrency_level": {
            "type": "ConcurrencyLevel", "default_concurrency": WORKERS, "max_concurrency": WORKERS,
        },
        "streams": [{
            "type": "DeclarativeStream",
            "name": "balance",
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {
                    "type": "HttpRequester",
                    "url_base": url,
                    "path": "/v1/balance",
                    "http_method": "GET",
                    "request_headers": {"Authorization": "Basic {{ stream_partition.token }}"},
                },
                "record_selector": {
                    "type": "RecordSelector",
                    "extractor": {"type": "DpathExtractor", "field_path": []},
                },
                "partition_router": {
                    "type": "ListPartitionRouter", "values": tokens, "cursor_field": "token",
                },
            },
            "schema_loader": {"type": "InlineSchemaLoader", "schema": schema},
        }],
        "spec": {"type": "Spec", "connection_specification": schema},
    }  # fmt: skip


def main() -> None:
    from airbyte_cdk.cli.source_declarative_manifest import run  # noqa: PLC0415

    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    tokens = [
        base64.b64encode(f"{entry['dev_key']}:{entry['dev_secret']}".encode()).decode()
        for entry in config["accounts"]
    ]
    injected = {"__injected_declarative_manifest": manifest(config["base_url"], tokens)}
    stream = {"name": "balance", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
    catalog = {
        "streams": [
            {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
        ]
    }
    (folder / "airbyte-config.json").write_text(json.dumps(injected), encoding="utf-8")
    (folder / "airbyte-catalog.json").write_text(json.dumps(catalog), encoding="utf-8")
    sys.argv[1:] = [
        "read", "--config", str(folder / "airbyte-config.json"),
        "--catalog", str(folder / "airbyte-catalog.json"),
    ]  # fmt: skip
    run()


if __name__ == "__main__":
    main()
