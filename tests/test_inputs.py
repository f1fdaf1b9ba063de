"""What a run is given its settings by, and where it runs: odd files, odd environments."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from bank import Account
from parts import NO_PROXY
from singer_sdk.configuration import _dict_config

from tap_balance.sandbox import settings_of
from tap_balance.tap import TapBalance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bank import Bank
    from tap_process import Run

    from tap_balance.sandbox import Sandbox

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{not json SHOW-ME-NOT", "is not JSON (line 1, column 2)"),
        (b"[]", "is not a JSON object"),
        (b"\xff\xfe\x00", "is not a file in UTF-8"),
        (None, "cannot be read (No such file or directory)"),
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
    unknown: dict[str, object] = {"snapshot_intervall": "SHOW-ME-NOT", "x": "SHOW-ME-NOT"}
    # The SDK knows these two: files instead of records, and a message that drops older rows.
    batch = {"encoding": {"format": "jsonl"}, "storage": {"root": "file:///SHOW-ME-NOT"}}
    unknown |= {"batch_config": batch, "emit_activate_version_messages": True}
    run = run_tap(settings_of(sandbox.url, "example") | unknown)
    assert run.status == 0
    assert [message["type"] for message in run.messages] == ["SCHEMA", "RECORD", "STATE"]
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
    (account,) = TapBalance.from_command_line(["ENV"]).accounts
    assert (account.name, account.dev_key) == ("default", "exported")


def test_a_quoted_number_and_an_empty_log_level_are_taken(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    config = settings_of(sandbox.url, "example") | {"request_timeout": "2.5"}
    run = run_tap(config, env={"LOGLEVEL": "", "SINGER_SDK_LOG_CONFIG": ""})
    assert run.status == 0
    assert len(run.records) == 1


def test_an_unknown_log_level_is_named(run_tap: Callable[..., Run]) -> None:
    run = run_tap({}, env={"TAP_BALANCE_LOGLEVEL": "LOUD"})
    assert run.status == 1
    assert run.stderr.startswith("TAP_BALANCE_LOGLEVEL: must be DEBUG, INFO")


@pytest.mark.parametrize("content", [b"{}", b"[", b"\xff", b"version: 1\nroot: 5", None])
def test_a_wrong_logging_config_is_named(
    run_tap: Callable[..., Run], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "logging.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    run = run_tap({}, env={"SINGER_SDK_LOG_CONFIG": str(path)})
    assert run.status == 1
    assert f"SINGER_SDK_LOG_CONFIG: {path} is not a logging config in YAML (" in run.stderr
    assert "Traceback" not in run.stderr


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


VARIABLES = {"TAP_BALANCE_DEV_KEY": "sandbox-example", "TAP_BALANCE_DEV_SECRET": "sandbox-secret"}


def test_empty_variables_beside_a_good_key_do_no_harm(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    empty = dict.fromkeys(("ACCOUNTS", "SHARD", "CURRENCY", "MAX_ATTEMPTS", "ACCOUNT"), "")
    env = {f"TAP_BALANCE_{name}": text for name, text in empty.items()} | VARIABLES
    run = run_tap(None, "--config=ENV", env=env | {"TAP_BALANCE_BASE_URL": sandbox.url})
    assert run.status == 0
    assert [record["account"] for record in run.records] == ["default"]


def test_variables_without_config_env_are_named_in_the_error(run_tap: Callable[..., Run]) -> None:
    run = run_tap(None, env=VARIABLES)
    assert run.status == 1
    assert run.stdout == ""
    assert run.errors[0].startswith("dev_key, dev_secret: not set; ")
    assert "--config=ENV" in run.errors[0]


@pytest.mark.parametrize(
    ("argument", "source"),
    [("--discover", "ENV"), ("--about", "ENV"), ("--discover", "nowhere.json")],
)
def test_what_needs_no_settings_does_not_read_them(
    run_tap: Callable[..., Run], argument: str, source: str
) -> None:
    run = run_tap(None, f"--config={source}", argument, env={"TAP_BALANCE_MAX_ATTEMPTS": "abc"})
    assert run.status == 0
    assert "balance" in run.stdout
    assert run.errors == []


def test_config_env_means_the_same_for_test(run_tap: Callable[..., Run], sandbox: Sandbox) -> None:
    env = VARIABLES | {"TAP_BALANCE_BASE_URL": sandbox.url, "TAP_BALANCE_CURRENCY": "EUR"}
    run = run_tap(None, "--config=ENV", "--test", env=env)
    assert run.status == 0
    assert "account 'default': works, total balance 14.3456 EUR" in run.stderr
    run = run_tap(None, "--config=ENV", "--test", env=env | {"TAP_BALANCE_MAX_ATTEMPTS": "abc"})
    assert run.status == 1
    assert run.errors[0] == "max_attempts: must be a whole number"


@pytest.mark.parametrize("value", ["false", "foo", "disabled"])
def test_test_takes_all_or_schema_and_nothing_else(
    run_tap: Callable[..., Run], bank: Bank, value: str
) -> None:
    before = bank.requests
    run = run_tap(bank.settings([Account("a", 1)]), f"--test={value}")
    assert run.status == 2
    assert run.stdout == ""
    assert bank.requests == before


def test_test_schema_sends_no_requests(run_tap: Callable[..., Run], bank: Bank) -> None:
    before = bank.requests
    run = run_tap(bank.settings([Account("a", 1)]), "--test=schema")
    assert run.status == 0
    assert [message["type"] for message in run.messages] == ["SCHEMA"]
    assert run.messages[0]["schema"]["properties"]["balance"]["scale"] == 4
    assert bank.requests == before


def on_a_terminal(folder: Path, config: dict[str, Any], *arguments: str) -> tuple[int, str, str]:
    """Run it with a terminal of 80 columns as stderr; return status, stdout and the terminal."""
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run(
        [sys.executable, "-m", "tap_balance", "--config", path, *arguments],
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
        timeout=60,
        check=False,
        env={name: text for name, text in os.environ.items() if name != "COLUMNS"} | NO_PROXY,
    )
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux reports the end
        while chunk := os.read(reader, 65536):
            shown += chunk
    os.close(reader)
    return done.returncode, done.stdout, shown.decode().replace("\r\n", "\n")


def test_test_prints_a_table_on_a_terminal(tmp_path: Path, sandbox: Sandbox) -> None:
    config = settings_of(sandbox.url, "example", "expired", "largest") | {"max_concurrency": 1}
    config["accounts"][0]["account"] = "主账户"
    config["accounts"][2]["account"] = "a\nb"
    status, stdout, shown = on_a_terminal(tmp_path, config, "--test")
    assert (status, stdout) == (1, "")
    failed = (
        "failed  sms                             -  'expired': HTTP 401, code 2002 (token expired "
        "or disabled): authentication failed: the key has expired or is disabled. "
        "Enable the key or create a new one in the EngageLab console."
    )
    assert shown.splitlines() == [
        "result  product             total balance  account",
        "works   sms                   14.3456 USD  '主账户'",
        failed,
        "works   sms      922337203685477.5807 USD  'a\\nb'",
    ]
    assert " | " not in shown


def test_accounts_that_are_not_enabled_are_counted_and_get_no_request(
    run_tap: Callable[..., Run], bank: Bank
) -> None:
    config = bank.settings([Account("a", 1), Account("b", 2), Account("c", 3)])
    config["accounts"][0]["enabled"] = config["accounts"][1]["enabled"] = False
    before = bank.requests
    run = run_tap(config)
    assert run.status == 0
    assert [record["account"] for record in run.records] == ["c"]
    assert run.stderr.count("2 of 3 accounts are disabled (enabled: false) and are skipped") == 1
    assert bank.requests == before + 1
    config["accounts"][2]["enabled"] = False
    run = run_tap(config)
    assert run.status == 0
    assert run.records == []
    assert [message["type"] for message in run.messages] == ["SCHEMA", "STATE"]
    assert "WARNING" in run.stderr
    assert "3 of 3 accounts are disabled" in run.stderr
    assert bank.requests == before + 1


def test_a_secret_by_reference_is_masked_like_any_other(
    run_tap: Callable[..., Run], bank: Bank
) -> None:
    config = bank.settings([Account("a", 1, error="expired")])
    (listed,) = config["accounts"]
    env = {"REFERENCE": listed.pop("dev_secret"), "TAP_BALANCE_LOGLEVEL": "DEBUG"}
    listed["dev_secret_env"] = "REFERENCE"
    run = run_tap(config, env=env)
    assert run.status == 1
    assert "HTTP 401, code 2002" in run.errors[0]
    assert env["REFERENCE"] not in run.stdout + run.stderr


def test_all_shards_of_a_run_store_under_the_interval_that_the_scheduler_sets(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    now = pendulum.now("UTC")
    begin = now.start_of("hour")
    config = settings_of(sandbox.url, "example", "main") | {"snapshot_interval": "PT1H"}
    for at, spelling in (
        (begin.subtract(hours=1), "YYYY-MM-DDTHH:mm:ssZ"),
        (begin, "YYYYMMDD[T]HHmmss[Z]"),
    ):
        run = run_tap(config | {"snapshot_at": at.format(spelling)})
        assert run.status == 0
        stored = at.format("YYYY-MM-DDTHH:mm:ss[Z]")
        assert {record["snapshot_at"] for record in run.records} == {stored}
        assert run.records[0]["snapshot_id"].endswith(f"@{stored}")
        assert (
            run.of_type("STATE")[0]["value"]["bookmarks"]["balance"]["replication_key_value"]
            == stored
        )
    run = run_tap(config | {"snapshot_at": begin.subtract(hours=3).to_iso8601_string()})
    assert run.status == 1
    assert run.errors[0].startswith("snapshot_at: is more than two intervals ago")
