"""Many accounts: their order, their isolation, hosts that are down or want to be left alone."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import FaultServer, hang, http, read_request
from faults import BODY, WHOLE
from tap_process import started

from tap_balance import concurrency
from tap_balance.accounts import Account
from tap_balance.client import BalanceClient
from tap_balance.concurrency import Progress, Shutdown, fetch_all
from tap_balance.errors import AccountError
from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fault_server import Script
    from tap_process import Run

    from tap_balance.concurrency import Outcome
    from tap_balance.responses import Answer
    from tap_balance.sandbox import Sandbox

LOGGER = logging.getLogger("test")


def accounts(count: int, url: str = "https://balance.example") -> list[Account]:
    return [Account(f"a{i}", "k", "s", "sms", f"{url}/v1/balance") for i in range(count)]


def fetch_from(
    listed: list[Account], *, at_once: int = 8, **limits: float
) -> tuple[list[tuple[Account, Outcome]], float]:
    options: dict[str, Any] = {"request_timeout": 5, "max_attempts": 2, "max_elapsed": 20} | limits
    ending = Shutdown()
    client = BalanceClient(
        listed, **options, max_concurrency=at_once, shutdown=ending, logger=LOGGER
    )
    began = time.monotonic()
    outcomes = list(
        fetch_all(
            client.fetch,
            listed,
            max_concurrency=at_once,
            shutdown=ending,
            progress=Progress(len(listed), LOGGER),
        )
    )
    client.close()
    return outcomes, time.monotonic() - began


def test_results_come_in_order_and_at_most_so_many_requests_are_in_flight() -> None:
    lock, flying, most = threading.Lock(), 0, 0

    def fetch(account: Account) -> Answer:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        # The later ones are the faster ones.
        time.sleep(0.02 / (1 + int(account.name[1:]) % 5))
        with lock:
            flying -= 1
        raise AccountError(account.name, "")

    listed = accounts(200)
    outcomes = fetch_all(
        fetch, listed, max_concurrency=7, shutdown=Shutdown(), progress=Progress(200, LOGGER)
    )
    assert [(account, str(error)) for account, error in outcomes] == [(a, a.name) for a in listed]
    assert 2 <= most <= 7


def test_one_account_needs_no_thread() -> None:
    def fetch(_: Account) -> Answer:
        raise AccountError(threading.current_thread().name, "")

    progress_of_one = Progress(1, LOGGER)
    ((_, error),) = fetch_all(
        fetch, accounts(1), max_concurrency=8, shutdown=Shutdown(), progress=progress_of_one
    )
    assert str(error) == threading.main_thread().name


def test_where_no_thread_can_be_started_the_accounts_are_asked_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit = ThreadPoolExecutor.submit
    left = iter(range(3))

    def exhausted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if next(left, None) is None:
            message = "can't start new thread"
            raise RuntimeError(message)
        return submit(*args, **kwargs)

    def fetch(account: Account) -> Answer:
        raise AccountError(account.name, "")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", exhausted)
    listed = accounts(20)
    outcomes = fetch_all(
        fetch, listed, max_concurrency=4, shutdown=Shutdown(), progress=Progress(20, LOGGER)
    )
    assert [str(error) for _, error in outcomes] == [account.name for account in listed]


@pytest.mark.slow
def test_an_answer_that_comes_late_is_not_taken_for_another_accounts() -> None:
    other = BODY.replace(b"123456", b"999999")
    late: Script = [
        read_request,
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        lambda _: time.sleep(0.2),
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(other) + other,
        hang,
    ]
    with FaultServer([late, http(200, BODY)]) as server:
        listed = accounts(2, f"http://127.0.0.1:{server.port}")
        client = BalanceClient(
            listed,
            request_timeout=5,
            max_attempts=1,
            max_elapsed=5,
            max_concurrency=1,
            shutdown=Shutdown(),
            logger=LOGGER,
        )
        with pytest.raises(AccountError, match="HTTP 103"):
            client.fetch(listed[0])
        time.sleep(0.4)
        assert client.fetch(listed[1]).amounts.balance10000 == 123456
        client.close()


@pytest.mark.slow
def test_a_host_that_is_down_costs_one_accounts_tries_and_leaves_other_hosts_alone() -> None:
    with socket.socket() as dead, FaultServer([http(200, BODY)]) as server:
        dead.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{dead.getsockname()[1]}"
        up = f"http://127.0.0.1:{server.port}"
        _, alone = fetch_from(accounts(1, down), max_attempts=3)
        both = accounts(300, down) + accounts(20, up)
        outcomes, together = fetch_from(both, max_attempts=3)
    errors = [outcome for account, outcome in outcomes if account.url.startswith(down)]
    assert all(isinstance(error, AccountError) for error in errors)
    at_once = [error for error in errors if "was not asked for this one" in str(error)]
    assert 280 <= len(at_once) < 300
    assert [type(outcome).__name__ for _, outcome in outcomes[300:]] == ["Answer"] * 20
    # 300 accounts, 8 at a time, one after the other, would take about 37 times as long.
    assert together < 10 * alone


@pytest.mark.slow
def test_a_host_that_answered_once_is_given_more_chances() -> None:
    scripts: list[Script] = [http(200, BODY), *[(read_request,)] * 8, http(200, BODY)]
    with FaultServer(scripts) as server:
        # One at a time, so that the first one is answered before the others are not.
        listed = accounts(30, f"http://127.0.0.1:{server.port}")
        outcomes, _ = fetch_from(listed, max_attempts=1, at_once=1)
    failed = [str(outcome) for _, outcome in outcomes if isinstance(outcome, AccountError)]
    assert len(failed) == 8
    assert not any("was not asked" in text for text in failed)


@pytest.mark.slow
def test_a_429_with_retry_after_slows_every_account_of_the_host() -> None:
    slow = http(429, headers={"Retry-After": "1"})
    # The others take their time, so that the pause is known before anybody asks a second time.
    with FaultServer([slow, (read_request, lambda _: time.sleep(0.3), WHOLE)]) as server:
        listed = accounts(40, f"http://127.0.0.1:{server.port}")
        outcomes, _ = fetch_from(listed)
        first, *later = server.accepted
        # Those that were on their way when the answer came could not know.
        early = [moment for moment in later if moment - first < 0.9]
    assert all(not isinstance(outcome, AccountError) for _, outcome in outcomes)
    assert len(server.accepted) == 41
    assert len(early) <= 7 + 8


@pytest.mark.slow
def test_a_429_beyond_max_elapsed_fails_the_others_without_asking() -> None:
    with FaultServer([http(429, headers={"Retry-After": "3600"})]) as server:
        outcomes, took = fetch_from(accounts(100, f"http://127.0.0.1:{server.port}"))
        asked = len(server.accepted)
    assert asked <= 16
    assert took < 10
    texts = [str(outcome) for _, outcome in outcomes]
    assert all("the server asks to wait 3" in text for text in texts)
    assert "has told another account to wait (tries: 0" in texts[-1]


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_long_run_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at_once: int
) -> None:
    monkeypatch.setattr(concurrency, "INTERVAL", 0.05)

    def fetch(account: Account) -> Answer:
        time.sleep(0.12 if account.name == "a0" else 0.01)
        raise AccountError(account.name, "")

    caplog.set_level(logging.INFO)
    told = Progress(10, LOGGER)
    list(
        fetch_all(fetch, accounts(10), max_concurrency=at_once, shutdown=Shutdown(), progress=told)
    )
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 2
    # Counted when they are done, although the first one still holds up the output.
    assert lines[0].startswith("accounts: ")
    assert lines[0].endswith(" left")
    assert not lines[0].startswith("accounts: 0 done")


def write_jsonl(path: Path, settings: dict[str, Any], count: int) -> None:
    (account,) = settings.pop("accounts")
    lines = [json.dumps(account | {"account": f"a{number}"}) for number in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_ten_thousand_accounts_from_a_file_are_one_schema_and_one_small_state(
    run_tap: Callable[..., Run], sandbox: Sandbox, tmp_path: Path
) -> None:
    settings = settings_of(sandbox.url, "example")
    write_jsonl(tmp_path / "accounts.jsonl", settings, 10_000)
    run = run_tap(settings | {"accounts_file": str(tmp_path / "accounts.jsonl")})
    assert run.status == 0
    assert [record["account"] for record in run.records] == [f"a{i}" for i in range(10_000)]
    assert len(run.of_type("SCHEMA")) == len(run.of_type("STATE")) == 1
    assert len(run.stdout.splitlines()[-1]) <= 200
    assert len(run.stderr) <= 2000


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGTERM", "reader gone"])
def test_an_end_in_mid_run_sends_few_requests_more(tmp_path: Path, end: str) -> None:
    with FaultServer([(read_request, lambda _: time.sleep(0.05), WHOLE)]) as server:
        (account,) = accounts(1, f"http://127.0.0.1:{server.port}")
        settings = {
            "accounts": [
                {"account": f"a{number}", "dev_key": "k", "dev_secret": "s"}
                for number in range(500)
            ],
            "base_url": account.url.removesuffix("/v1/balance"),
            "max_concurrency": 8,
        }
        with started(settings, tmp_path) as process:
            assert process.stdout is not None
            for _ in range(20):
                process.stdout.readline()
            before = len(server.requests)
            if end == "SIGTERM":
                os.kill(process.pid, signal.SIGTERM)
            else:
                process.stdout.close()
            assert process.wait(30) == (143 if end == "SIGTERM" else 1)
        # What the reader had in front of it was asked for already.
        assert len(server.requests) - before <= 2 * 8
