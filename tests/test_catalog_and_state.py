"""The catalog and the state that a run is given: odd ones lose no row and no snapshot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tap_process import Run

    from tap_balance.sandbox import Sandbox

pytestmark = pytest.mark.slow


def changed_catalog(
    run_tap: Callable[..., Run], path: Path, change: Callable[[dict[str, Any]], None]
) -> tuple[str, str]:
    """Save the discovered catalog, changed, and return the arguments to use it."""
    catalog = json.loads(run_tap(None, "--discover").stdout)
    change(catalog)
    path.write_text(json.dumps(catalog))
    return "--catalog", str(path)


def test_a_catalog_without_a_key_and_with_full_table_cannot_lose_rows(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    catalog = json.loads(run_tap(None, "--discover").stdout)
    (entry,) = catalog["streams"]
    del entry["key_properties"], entry["replication_key"]
    entry["replication_method"] = "FULL_TABLE"
    for row in entry["metadata"]:
        row["metadata"].pop("table-key-properties", None)
        if row["breadcrumb"] in (["properties", "snapshot_id"], ["properties", "currency"]):
            row["metadata"] = {"inclusion": "available", "selected": False}
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps(catalog))
    run = run_tap(settings_of(sandbox.url, "example"), "--catalog", str(path))
    assert run.status == 0
    (schema,) = run.of_type("SCHEMA")
    assert schema["key_properties"] == ["snapshot_id"]
    assert "snapshot_id" in run.records[0]
    assert "currency" not in run.records[0]
    assert run.of_type("ACTIVATE_VERSION") == []
    assert "Set the replication method to INCREMENTAL" in run.stderr


def test_a_catalog_without_metadata_selects_all(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "catalog.json"
    path.write_text('{"streams": [{"tap_stream_id": "balance"}]}')
    run = run_tap(settings_of(sandbox.url, "example"), "--catalog", str(path))
    assert run.status == 0
    assert run.records[0]["balance10000"] == 123456
    assert len(run.of_type("STATE")) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON (line 1, column 1)"),
        (b"{", "is not JSON (line 1, column 2)"),
        (b"\xff", "is not JSON (line 1, column 1)"),
        (b"[]", "is not a Singer catalog"),
        (b'{"streams": 5}', "is not a Singer catalog"),
        (b'{"streams": [{}]}', "is not a Singer catalog"),
    ],
)
def test_what_is_no_catalog_is_refused(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "catalog.json"
    path.write_bytes(content)
    run = run_tap(settings_of(sandbox.url, "example"), "--catalog", str(path))
    assert run.status == 1
    assert run.errors[0] == f"--catalog: the file {problem}; make one with --discover"


def deselect_the_stream(catalog: dict[str, Any]) -> None:
    for row in catalog["streams"][0]["metadata"]:
        if row["breadcrumb"] == []:
            row["metadata"]["selected"] = False


def name_another_stream(catalog: dict[str, Any]) -> None:
    catalog["streams"][0] |= {"tap_stream_id": "orders", "stream": "orders"}


def name_no_stream(catalog: dict[str, Any]) -> None:
    catalog["streams"] = []


@pytest.mark.parametrize("change", [deselect_the_stream, name_another_stream, name_no_stream])
def test_a_run_that_would_read_nothing_is_an_error(
    run_tap: Callable[..., Run],
    sandbox: Sandbox,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
) -> None:
    arguments = changed_catalog(run_tap, tmp_path / "catalog.json", change)
    run = run_tap(settings_of(sandbox.url, "example"), *arguments)
    assert run.status == 1
    assert run.stdout == ""
    assert run.errors == [
        (
            "--catalog: the stream balance is not selected, so nothing would be read; "
            "change that, or do not run the tap"
        ),
        "Invalid settings; no requests were sent.",
    ]


def test_a_catalog_may_name_fields_that_do_not_exist(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    def add_a_field(catalog: dict[str, Any]) -> None:
        (entry,) = catalog["streams"]
        entry["schema"]["properties"]["mood"] = {"type": "string"}
        entry["metadata"].append(
            {"breadcrumb": ["properties", "mood"], "metadata": {"selected": True}}
        )

    arguments = changed_catalog(run_tap, tmp_path / "catalog.json", add_a_field)
    run = run_tap(settings_of(sandbox.url, "example"), *arguments)
    assert run.status == 0
    (record,) = run.records
    assert "mood" not in record
    assert record["balance10000"] == 123456


def test_a_deselected_field_is_in_neither_the_schema_nor_the_record(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    def deselect_a_field(catalog: dict[str, Any]) -> None:
        for row in catalog["streams"][0]["metadata"]:
            if row["breadcrumb"] == ["properties", "gift_balance"]:
                row["metadata"] = {"inclusion": "available", "selected": False}

    arguments = changed_catalog(run_tap, tmp_path / "catalog.json", deselect_a_field)
    run = run_tap(settings_of(sandbox.url, "example"), *arguments)
    assert run.status == 0
    (schema,) = run.of_type("SCHEMA")
    assert "gift_balance" not in schema["schema"]["properties"]
    assert "gift_balance" not in schema["schema"].get("required", [])
    assert "gift_balance" not in run.records[0]


def test_what_keeps_a_row_whole_cannot_be_deselected(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    """As after `meltano select tap-balance balance total_balance10000`."""

    def select_one_field(catalog: dict[str, Any]) -> None:
        for row in catalog["streams"][0]["metadata"]:
            wanted = row["breadcrumb"] in ([], ["properties", "total_balance10000"])
            row["metadata"]["selected"] = wanted

    arguments = changed_catalog(run_tap, tmp_path / "catalog.json", select_one_field)
    run = run_tap(settings_of(sandbox.url, "example"), *arguments)
    assert run.status == 0
    (record,) = run.records
    assert {name: record.get(name) for name in ("account", "balance10000")} == {
        "account": "example",
        "balance10000": 123456,
    }
    kept = {"snapshot_id", "snapshot_at", "account", "observed_at"}
    kept |= {"balance10000", "gift_balance10000", "total_balance10000"}
    assert set(record) == kept
    assert set(run.of_type("SCHEMA")[0]["schema"]["properties"]) == kept


def state_file(folder: Path, content: object) -> tuple[str, str]:
    """Save a state and return the arguments to use it."""
    path = folder / "state.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return "--state", str(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"bookmarks": []}', '{"bookmarks": {"x": {}}}']
)
def test_a_bad_state_costs_no_snapshot(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path, content: str
) -> None:
    run = run_tap(settings_of(sandbox.url, "example"), *state_file(tmp_path, content))
    assert run.status == 0
    assert len(run.records) == 1
    assert len(run.of_type("STATE")) == 1


def test_a_failed_run_keeps_the_bookmark(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    bookmark = {
        "replication_key": "snapshot_at",
        "replication_key_value": "2026-01-31T10:00:00Z",
    }
    state = state_file(tmp_path, {"bookmarks": {"balance": bookmark}})
    run = run_tap(settings_of(sandbox.url, "expired"), *state)
    assert [message["value"] for message in run.of_type("STATE")] == [
        {"bookmarks": {"balance": bookmark}}
    ]


def test_a_state_ahead_of_the_clock_loses_nothing_and_is_put_right(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    ahead = {"replication_key": "snapshot_at", "replication_key_value": "2999-01-01T00:00:00Z"}
    given = state_file(tmp_path, {"bookmarks": {"balance": ahead}})
    run = run_tap(settings_of(sandbox.url, "example"), *given)
    assert run.status == 0
    (record,) = run.records
    (state,) = run.of_type("STATE")
    bookmark = state["value"]["bookmarks"]["balance"]
    assert bookmark["replication_key_value"] == record["snapshot_at"] < "2999"


def test_a_state_of_another_stream_is_not_taken_over(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    other = {"partitions": [{"context": {"a": 1}}]}
    given = state_file(tmp_path, {"bookmarks": {"orders": other}})
    run = run_tap(settings_of(sandbox.url, "example"), *given)
    assert run.status == 0
    assert len(run.records) == 1
    (state,) = run.of_type("STATE")
    assert list(state["value"]["bookmarks"]) == ["balance"]
