"""Every fault of the table, against the real process over real sockets, at log level DEBUG."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import FaultServer, FullBacklog
from faults import BASIC, CA_PEM, DEV_KEY, DEV_SECRET, FAULTS, SECRETS
from fetching import fetch
from parts import NO_PROXY
from tap_process import NO_CA, Run

from tap_balance.accounts import read_accounts
from tap_balance.amounts import exact_decimal
from tap_balance.errors import AccountError
from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from conftest import Tally
    from faults import Fault

    from tap_balance.sandbox import Sandbox

pytestmark = pytest.mark.slow

ALL = [fault for faults in FAULTS.values() for fault in faults]
LONGEST_LINE = 500


@dataclass(frozen=True)
class Outcome:
    """What a run with a fault came to, on both sides of the wire."""

    run: Run
    accepted: list[float]
    requests: list[bytes]


@contextmanager
def prepared(
    fault: Fault, folder: Path
) -> Iterator[tuple[FaultServer, dict[str, Any], dict[str, str]]]:
    """Serve a fault; yield the server, the settings of its account, and the environment."""
    with ExitStack() as stack:
        server = stack.enter_context(FaultServer(fault.scripts))
        dead = stack.enter_context(socket.socket())
        dead.bind(("127.0.0.1", 0))
        places = {
            "port": server.port,
            "dead": dead.getsockname()[1],
            "folder": folder,
            "ca": folder / "ca.pem",
        }
        if "{full}" in fault.base_url:
            places["full"] = stack.enter_context(FullBacklog()).port
        (folder / "ca.pem").write_bytes(CA_PEM)
        netrc = folder / ".netrc"
        netrc.write_text("default login other password not-this-one\n")
        netrc.chmod(0o600)
        base_url = fault.base_url.format_map(places)
        env = {name: value.format_map(places) for name, value in fault.env.items()}
        account = {
            "account": "faulty",
            "dev_key": DEV_KEY,
            "dev_secret": DEV_SECRET,
            "base_url": base_url,
            "product": fault.settings.get("product", "sms"),
        }
        yield server, account, env


def run_with(fault: Fault, folder: Path, url: str) -> Outcome:
    folder.mkdir()
    config = folder / "config.json"
    with prepared(fault, folder) as (server, account, env):
        settings = settings_of(url, "example") | {"max_attempts": 2, **fault.settings}
        settings["product"] = "sms"
        settings["accounts"].insert(0, account)
        config.write_text(json.dumps(settings))
        done = subprocess.run(
            [sys.executable, "-m", "tap_balance", "--config", config],
            capture_output=True,
            timeout=120,
            check=False,
            env={"PATH": os.environ["PATH"], "TAP_BALANCE_LOGLEVEL": "DEBUG"} | env,
        )
    run = Run(done.returncode, done.stdout.decode(), done.stderr.decode())
    return Outcome(run, server.accepted, server.requests)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Outcome]]]:
    """Run the faults that are asked for, a few at once: most of their time is waiting."""
    folder = tmp_path_factory.mktemp("faults")
    here = test_a_fault_ends_as_expected.__name__
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = {item.callspec.params["fault"] for item in items if item.originalname == here}
    with ThreadPoolExecutor(3) as pool:
        yield {
            fault.name: pool.submit(run_with, fault, folder / str(number), sandbox.url)
            for number, fault in enumerate(ALL)
            if fault in chosen
        }


def secrets_in(*texts: str) -> list[str]:
    return [form for form, secret in SECRETS.items() for text in texts if secret in text]


def test_there_are_at_least_100_distinct_faults() -> None:
    assert len({fault.name for fault in ALL}) == len(ALL) >= 100


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_a_fault_ends_as_expected(
    fault: Fault, outcomes: Mapping[str, Future[Outcome]], tally: Tally
) -> None:
    outcome = outcomes[fault.name].result()
    run = outcome.run
    tally.faults += 1
    found = secrets_in(run.stdout, run.stderr)
    tally.secrets += len(found)
    assert found == []
    amounts = {
        record["account"]: tuple(
            record[name] for name in ("balance10000", "gift_balance10000", "total_balance10000")
        )
        for record in run.records
    }
    expected = ({} if fault.line else {"faulty": fault.amounts}) | {
        "example": (123456, 20000, 143456)
    }
    wrong = sum(amounts[name] != expected.get(name) for name in amounts)
    wrong += sum(
        record[name] != exact_decimal(record[f"{name}10000"])
        for record in run.records
        for name in ("balance", "gift_balance", "total_balance")
    )
    tally.wrong_rows += wrong
    assert amounts == expected, run.stderr
    assert wrong == 0
    assert [message["type"] for message in run.messages] == [
        "SCHEMA", *["RECORD"] * len(expected), "STATE"
    ]  # fmt: skip
    assert run.status == (1 if fault.line else 0)
    assert "Traceback" not in run.stderr
    if fault.line:
        (line,) = run.errors
        assert line.startswith("account 'faulty': ")
        assert fault.line in line
        assert line.endswith(".")
        assert line.isprintable()
        if fault.tries > 1:
            assert f"({fault.tries} attempts in " in line
        assert len(line.encode()) < LONGEST_LINE
    else:
        assert run.errors == []
        assert fault.warning in run.stderr
        assert ("| WARNING " in run.stderr) == bool(fault.warning)
    if fault.connects:
        assert len(outcome.accepted) == fault.tries
    for sent in outcome.requests:
        assert f"authorization: basic {BASIC}".encode().lower() in sent.lower()
    if fault.pause:
        assert outcome.accepted[1] - outcome.accepted[0] >= fault.pause
    tally.as_expected += 1


@pytest.mark.parametrize(
    "fault", [fault for fault in ALL if fault.line], ids=lambda fault: fault.name
)
def test_no_exception_text_holds_a_secret(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    for name in NO_CA:
        monkeypatch.delenv(name, raising=False)
    with prepared(fault, tmp_path) as (_, settings, env):
        for name, value in (NO_PROXY | env).items():
            monkeypatch.setenv(name, value)
        (account,) = read_accounts({"accounts": [settings]})
        limits: dict[str, Any] = {"request_timeout": 5, "max_elapsed": 20, **fault.settings}
        limits.pop("product", None)
        with pytest.raises(AccountError) as failure:
            fetch(account, **limits, max_attempts=1)
    # With its causes, as a program that uses the client would log it.
    text = "".join(traceback.format_exception(failure.value))
    assert "AccountError" in text or "RetriableError" in text
    found = secrets_in(text, repr(failure.value), repr(account), str(account))
    del failure
    with warnings.catch_warnings():
        # Up to Python 3.11, http.client leaves a refused proxy connection to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    tally.secrets += len(found)
    assert found == []


@pytest.mark.parametrize("arguments", ["--about", "--about --format=json", "--discover", "--test"])
@pytest.mark.parametrize("source", ["file", "environment"])
def test_no_command_shows_a_secret(
    run_tap: Callable[..., Run], sandbox: Sandbox, arguments: str, source: str, tally: Tally
) -> None:
    # The sandbox does not know the key, so that --test fails with it.
    config = {"dev_key": DEV_KEY, "dev_secret": DEV_SECRET, "base_url": sandbox.url}
    env = {"TAP_BALANCE_LOGLEVEL": "DEBUG"}
    if source == "file":
        run = run_tap(config, *arguments.split(), env=env)
    else:
        variables = {f"TAP_BALANCE_{name.upper()}": value for name, value in config.items()}
        run = run_tap(None, "--config=ENV", *arguments.split(), env=env | variables)
    assert run.status == (1 if arguments == "--test" else 0)
    found = secrets_in(run.stdout, run.stderr)
    tally.secrets += len(found)
    assert found == []
