"""The command, as a process of its own, against the sandbox over a real socket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tap_process import Run

    from tap_balance.sandbox import Sandbox

pytestmark = pytest.mark.slow

BASIC = "c2FuZGJveC1leGFtcGxlOnNhbmRib3gtc2VjcmV0"  # sandbox-example:sandbox-secret


def test_stdout_is_one_schema_the_records_and_one_state(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    names = ["otp", "example", "main", "overdrawn", "largest", "smallest"]
    run = run_tap(settings_of(sandbox.url, *names))
    assert run.status == 0
    kinds = [message["type"] for message in run.messages]
    assert kinds == ["SCHEMA", *["RECORD"] * 6, "STATE"]
    assert sorted(record["account"] for record in run.records) == sorted(names)
    (example,) = (record for record in run.records if record["account"] == "example")
    snapshot_at = example["snapshot_at"]
    assert example == {
        "snapshot_id": f"example@{snapshot_at}",
        "account": "example",
        "product": "sms",
        "snapshot_at": snapshot_at,
        "observed_at": example["observed_at"],
        "currency": "USD",
        "balance10000": 123456,
        "gift_balance10000": 20000,
        "total_balance10000": 143456,
        "balance": "12.3456",
        "gift_balance": "2.0000",
        "total_balance": "14.3456",
    }
    assert {record["snapshot_at"] for record in run.records} == {snapshot_at}
    (state,) = run.of_type("STATE")
    bookmark = {"replication_key": "snapshot_at", "replication_key_value": snapshot_at}
    assert state["value"] == {"bookmarks": {"balance": bookmark}}
    assert len(run.stdout.splitlines()[-1]) <= 200
    assert len(run.stderr) < 2000
    assert run.errors == []


def test_the_schema_line_keeps_precision_and_scale(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    # With and without a catalog: Meltano always passes one.
    catalog = tmp_path / "catalog.json"
    catalog.write_text(run_tap(None, "--discover").stdout)
    config = settings_of(sandbox.url, "example")
    for arguments in ([], ["--catalog", str(catalog)]):
        (schema,) = run_tap(config, *arguments).of_type("SCHEMA")
        assert schema["key_properties"] == ["snapshot_id"]
        for field in ("balance", "gift_balance", "total_balance"):
            written = schema["schema"]["properties"][field]
            assert written.pop("description")
            assert written == {
                "type": "string",
                "format": "x-singer.decimal",
                "precision": 38,
                "scale": 4,
            }
            integer = schema["schema"]["properties"][f"{field}10000"]
            assert integer["type"] == "integer"


def test_a_wrong_key_and_a_dead_host_are_one_line_each(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        config = settings_of(sandbox.url, "example") | {"max_attempts": 2}
        config["accounts"] += [
            {"account": "wrong", "dev_key": "sandbox-main", "dev_secret": "not-the-secret"},
            {"account": "dead", "dev_key": "k", "dev_secret": "s", "base_url": dead},
        ]
        run = run_tap(config)
    assert run.status == 1
    assert [message["type"] for message in run.messages] == ["SCHEMA", "RECORD", "STATE"]
    assert [record["account"] for record in run.records] == ["example"]
    wrong, refused = sorted(run.errors, reverse=True)
    assert wrong.startswith("account 'wrong': HTTP 401, code 2001 (invalid token): ")
    assert "Check dev_key and dev_secret of this account" in wrong
    assert refused.startswith(f"account 'dead': {dead.removeprefix('http://')} refused the conn")
    assert "Check the network" in refused


@pytest.mark.parametrize("argument", ["--discover", "--about", "--version", ""])
def test_discovery_and_wrong_settings_send_nothing(
    run_tap: Callable[..., Run], argument: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        config = settings_of(url, "example")
        # The second account of this name makes a sync refuse the settings.
        config["accounts"] *= 1 if argument else 2
        run = run_tap(config, *argument.split())
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.accept()
    assert run.status == (0 if argument else 1)
    if not argument:
        assert run.stdout == ""
        assert run.errors == [
            "accounts[1].account: the same name as in accounts[0]; names must differ",
            "Invalid settings; no requests were sent.",
        ]


def test_test_tries_every_account_and_tells_for_each(
    run_tap: Callable[..., Run], sandbox: Sandbox
) -> None:
    run = run_tap(settings_of(sandbox.url, "example", "expired", "otp"), "--test")
    assert run.status == 1
    assert run.stdout == ""
    assert "account 'example': works, total balance 14.3456" in run.stderr
    assert "account 'otp': works" in run.stderr
    (line,) = run.errors
    assert line.startswith("account 'expired': HTTP 401, code 2002")
    assert run_tap(settings_of(sandbox.url, "example"), "--test").status == 0
    help_text = " ".join(run_tap(None, "--help").stdout.split())
    assert "Check that every account works; writes no records." in help_text


def test_test_leaves_no_file_open_of_which_python_would_warn(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    # `meltano invoke tap-balance --test` passes a catalog and sets this variable.
    catalog = tmp_path / "catalog.json"
    catalog.write_text(run_tap(None, "--discover").stdout)
    config = settings_of(sandbox.url, "expired")
    run = run_tap(config, "--catalog", str(catalog), "--test", env={"PYTHONWARNINGS": "once"})
    assert run.status == 1
    assert "Warning" not in run.stderr


CHATTER = """
import sys, warnings
from tap_balance.client import BalanceClient
fetch = BalanceClient.fetch
def chatty(*args):
    print("a library prints")
    sys.stdout.write("and writes")
    warnings.warn("and warns", stacklevel=1)
    return fetch(*args)
BalanceClient.fetch = chatty
from tap_balance.__main__ import main
main()
"""


def test_a_library_that_prints_or_warns_does_not_get_onto_stdout(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings_of(sandbox.url, "example")))
    run = subprocess.run(
        [sys.executable, "-c", CHATTER, "--config", config],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    kinds = [json.loads(line)["type"] for line in run.stdout.splitlines()]
    assert kinds == ["SCHEMA", "RECORD", "STATE"]
    for words in ("a library prints", "and writes", "and warns"):
        assert words in run.stderr
