"""What a run is given its settings by, and where it runs: odd files, odd environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING
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


def test_an_unknown_setting_is_a_warning_with_the_name_that_is_meant(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    unknown = {"snapshot_intervall": "SHOW-ME-NOT", "x": "SHOW-ME-NOT"}
    run = run_tap(settings_of(sandbox.url, "example") | unknown)
    assert run.status == 0
    assert (
        "unknown setting 'snapshot_intervall' ignored; did you mean 'snapshot_interval'?\n"
        in run.stderr
    )
    assert "unknown setting 'x' ignored\n" in run.stderr
    assert "SHOW-ME-NOT" not in run.stderr


def test_a_typo_in_a_setting_that_is_needed_is_named_beside_what_is_not_set(
    run_tap: Callable[..., Run],
) -> None:
    run = run_tap({"dev_key": "k", "dev_secrett": "SHOW-ME-NOT"})
    assert run.status == 1
    assert "unknown setting 'dev_secrett' ignored; did you mean 'dev_secret'?" in run.stderr
    assert run.errors[0].startswith("dev_secret: not set")
    assert "SHOW-ME-NOT" not in run.stderr


def test_wrong_settings_are_named_together(run_tap: Callable[..., Run]) -> None:
    wrong = {"max_attempts": 0, "snapshot_interval": "1h", "shard": "0/4"}
    run = run_tap({"dev_key": "k", "dev_secret": "s"} | wrong)
    assert [line.split(", such as")[0] for line in run.errors] == [
        "max_attempts: must be at least 1",
        "snapshot_interval: must be an ISO 8601 duration that divides a day",
        "shard: must be i/n with i from 1 to n",
        "Invalid settings; no requests were sent.",
    ]


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


def test_a_name_in_any_script_survives_an_ascii_locale(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    config = settings_of(sandbox.url, "example")
    config["accounts"][0]["account"] = '主账户 "a"\nb'
    run = run_tap(config, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert run.status == 0
    assert run.records[0]["account"] == '主账户 "a"\nb'


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
