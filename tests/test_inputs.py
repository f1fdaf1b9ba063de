"""What a run is given besides its settings: files and an environment, odd ones too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from singer_sdk.configuration import _dict_config

from tap_balance.sandbox import settings_of
from tap_balance.tap import TapBalance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tap_process import Run

    from tap_balance.sandbox import Sandbox

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{not json SHOW-ME-NOT", "not JSON (line 1, column 2)"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe\x00", "not JSON in UTF-8"),
        (None, "No such file or directory"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_one_line(
    run_tap: Callable[..., Run], tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_bytes(content)
    run = run_tap(None, "--config", str(path))
    assert run.status == 1
    assert words in run.errors[0]
    assert "SHOW-ME-NOT" not in run.stderr
    assert "Traceback" not in run.stderr


def test_settings_on_the_command_line_are_refused_and_not_shown(
    run_tap: Callable[..., Run],
) -> None:
    run = run_tap(None, "--config", '{"dev_secret": "SHOW-ME-NOT"}')
    assert run.status == 1
    assert run.errors[0].startswith("--config: is not a path; write the settings into a file")
    assert "SHOW-ME-NOT" not in run.stderr


def test_a_file_dot_env_overrides_nothing_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK looks for it above its own code, where a test cannot put one.
    dotenv = tmp_path / ".env"
    dotenv.write_text("TAP_BALANCE_DEV_KEY=of-the-file\nTAP_BALANCE_ACCOUNT=of-the-file\n")
    monkeypatch.setattr(_dict_config, "find_dotenv", lambda: str(dotenv))
    monkeypatch.setenv("TAP_BALANCE_DEV_KEY", "exported")
    monkeypatch.setenv("TAP_BALANCE_DEV_SECRET", "fake-secret")
    monkeypatch.delenv("TAP_BALANCE_ACCOUNT", raising=False)
    config = TapBalance.cb_config(mock.Mock(), mock.Mock(), ("ENV",))
    (account,) = TapBalance.from_command_line(config).accounts
    assert (account.name, account.dev_key) == ("default", "exported")


def test_an_unknown_log_level_is_named(run_tap: Callable[..., Run]) -> None:
    run = run_tap({}, env={"TAP_BALANCE_LOGLEVEL": "LOUD"})
    assert run.status == 1
    assert run.stderr.startswith("TAP_BALANCE_LOGLEVEL: must be DEBUG, INFO")


def test_a_config_with_a_byte_order_mark_and_crlf_works(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "windows.json"
    text = json.dumps(settings_of(sandbox.url, "example"), indent=2).replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert run_tap(None, "--config", str(path)).status == 0


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


@pytest.mark.parametrize("content", ["{", "[]", '{"streams": 5}', '{"streams": [{}]}'])
def test_what_is_no_catalog_is_refused(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(content)
    run = run_tap(settings_of(sandbox.url, "example"), "--catalog", str(path))
    assert run.status == 1
    assert "is not a Singer catalog" in run.errors[0]


def test_a_name_in_any_script_survives_an_ascii_locale(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    config = settings_of(sandbox.url, "example")
    config["accounts"][0]["account"] = '主账户 "a"\nb'
    run = run_tap(config, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert run.status == 0
    assert run.records[0]["account"] == '主账户 "a"\nb'


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


def changed_catalog(
    run_tap: Callable[..., Run], path: Path, change: Callable[[dict[str, Any]], None]
) -> tuple[str, str]:
    """Save the discovered catalog, changed, and return the arguments to use it."""
    catalog = json.loads(run_tap(None, "--discover").stdout)
    change(catalog)
    path.write_text(json.dumps(catalog))
    return "--catalog", str(path)


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
            "select it, or do not run the tap"
        ),
        "The settings are wrong; nothing was sent.",
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


@pytest.mark.parametrize("name", ["example", "expired"])
def test_without_a_home_in_a_read_only_folder_and_with_warnings_as_errors_it_runs(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings_of(sandbox.url, name)))
    # Not even root can make a file in /proc.
    run = subprocess.run(
        [sys.executable, "-W", "error", "-bb", "-m", "tap_balance", "--config", config],
        cwd="/proc",
        env={"PATH": os.environ["PATH"], "TMPDIR": "/proc", "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == (0 if name == "example" else 1), run.stderr
    assert ('"type":"RECORD"' in run.stdout) == (name == "example")
    assert "Warning" not in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("stream_map", "words"),
    [
        ({"balance": {"x": "("}}, "stream_maps: Failed to parse expression"),
        ({"balance": {"x": "1/0"}}, "stream_maps: an expression fails with ZeroDivisionError"),
        ({"balance": {"x": "nobody"}}, "stream_maps: Failed to evaluate"),
        ({"balance": 5}, "stream_maps.balance: "),
        ({"balance": None}, "stream_maps: the stream balance is removed"),
        ({"__else__": None}, "stream_maps: the stream balance is removed"),
        ([], "stream_maps: must be a JSON object"),
    ],
)
def test_a_wrong_stream_map_is_named(
    run_tap: Callable[..., Run], sandbox: Sandbox, stream_map: object, words: str
) -> None:
    run = run_tap(settings_of(sandbox.url, "example") | {"stream_maps": stream_map})
    assert run.status == 1
    assert run.records == []
    assert any(line.startswith(words) for line in run.errors)
    assert "defect" not in run.stderr
    assert "Traceback" not in run.stderr
