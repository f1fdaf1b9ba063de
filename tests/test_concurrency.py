"""Many accounts: as they complete, none held back by another, hosts that are down or slow."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from clock import standing_still
from fault_server import FaultServer, hang, http, read_request
from faults import BODY, WHOLE
from fetching import fetch_from
from tap_process import started

from tap_balance.accounts import Account
from tap_balance.amounts import Amounts
from tap_balance.client import Balance, BalanceClient
from tap_balance.errors import AccountError, RetriableError
from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fault_server import Script
    from tap_process import Run
    from typing_extensions import Never

    from tap_balance.concurrency import Outcome
    from tap_balance.sandbox import Sandbox

    Respond = Callable[[Callable[[str], Balance]], None]

GOOD = Balance(Amounts(1, 0, 1), pendulum.datetime(2026, 1, 31))


def accounts(count: int, url: str = "https://balance.example", name: str = "a") -> list[Account]:
    return [Account(f"{name}{i}", "k", "s", "sms", f"{url}/v1/balance") for i in range(count)]


def local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def timed(listed: list[Account], **limits: float) -> tuple[list[tuple[Account, Outcome]], float]:
    began = time.monotonic()
    return fetch_from(listed, **limits), time.monotonic() - began


def errors_in(outcomes: list[tuple[Account, Outcome]]) -> dict[str, str]:
    return {a.name: error.happened for a, error in outcomes if isinstance(error, AccountError)}


@pytest.fixture
def respond_with(monkeypatch: pytest.MonkeyPatch) -> Respond:
    """Make all requests by a function of the account's name: it returns or raises the outcome."""

    def respond(fetch: Callable[[str], Balance]) -> None:
        monkeypatch.setattr(BalanceClient, "fetch", lambda _, account, __: fetch(account.name))

    return respond


def fail(**how: Any) -> Never:  # noqa: ANN401
    message = "it failed"
    raise RetriableError(message, "", **how)


def test_results_come_as_they_complete_with_at_most_max_concurrency_in_flight(
    respond_with: Respond,
) -> None:
    lock, flying, most = threading.Lock(), 0, 0
    last = threading.Event()

    def fetch(name: str) -> Balance:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        if name == "a0":
            assert last.wait(10)  # the first account completes after all the others
        time.sleep(0.002)
        if name == "a199":
            last.set()
        with lock:
            flying -= 1
        return GOOD

    respond_with(fetch)
    listed = accounts(200)
    names = [account.name for account, _ in fetch_from(listed, max_concurrency=7)]
    assert names[-1] == "a0"
    assert sorted(names) == sorted(account.name for account in listed)
    assert 2 <= most <= 7


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_with_too_few_threads_no_account_is_requested_twice(
    monkeypatch: pytest.MonkeyPatch,
    respond_with: Respond,
    allowed: int,
) -> None:
    start = threading.Thread.start
    left = iter(range(allowed))
    requested: list[str] = []

    def exhausted(thread: threading.Thread) -> None:
        if next(left, None) is None:
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    def fetch(name: str) -> Balance:
        requested.append(name)
        return GOOD

    monkeypatch.setattr(threading.Thread, "start", exhausted)
    respond_with(fetch)
    outcomes = fetch_from(accounts(60), max_concurrency=40)
    assert len(outcomes) == len(requested) == len(set(requested)) == 60


def test_a_defect_in_one_account_is_its_error_only(respond_with: Respond) -> None:
    def fetch(name: str) -> Balance:
        if name == "a1":
            return {"a0": GOOD}["secret"]
        return GOOD

    respond_with(fetch)
    (line,) = errors_in(fetch_from(accounts(3))).values()
    assert line.startswith("the tap failed with KeyError at line ")
    assert "secret" not in line


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, 3, 32])
def test_accounts_that_hang_cost_no_other_its_record(places: int) -> None:
    scripts: list[Script] = [*[(read_request, hang)] * 3, http(200, BODY)]
    with FaultServer(scripts) as server:
        outcomes, took = timed(
            accounts(23, local(server.port)),
            max_concurrency=places,
            request_timeout=0.4,
            max_attempts=1,
        )
    errors = errors_in(outcomes)
    assert len(errors) == 3
    assert all("timed out waiting for a complete response" in text for text in errors.values())
    assert took < 0.4 * 3 + 1


@pytest.mark.slow
def test_the_second_attempt_of_one_that_hangs_comes_after_the_first_of_all_others() -> None:
    with FaultServer([(read_request, hang), http(200, BODY)]) as server:
        outcomes, _ = timed(
            accounts(20, local(server.port)), max_concurrency=1, request_timeout=0.4
        )
    assert errors_in(outcomes) == {}
    assert outcomes[-1][0].name == "a0"


def test_a_wait_holds_no_place_in_the_pool(respond_with: Respond) -> None:
    attempts = {"a0": 0}

    def fetch(name: str) -> Balance:
        if name == "a0":
            attempts[name] += 1
            if attempts[name] == 1:
                fail(retry_after=9)
        return GOOD

    respond_with(fetch)
    with standing_still() as clock:
        outcomes = fetch_from(accounts(50), max_concurrency=1)
    assert [account.name for account, _ in outcomes] == [f"a{i}" for i in (*range(1, 50), 0)]
    assert clock.waited == pytest.approx(9)


def test_the_wait_for_a_place_is_not_time_of_the_account(respond_with: Respond) -> None:
    with standing_still() as clock:

        def fetch(name: str) -> Balance:
            clock.now += 5
            if name == "a0" and clock.now < 1020:
                fail(timed_out=True)
            return GOOD

        respond_with(fetch)
        outcomes = fetch_from(accounts(10), max_concurrency=1, max_elapsed=12)
    assert errors_in(outcomes) == {}


@pytest.mark.slow
def test_a_response_after_an_interim_one_is_not_taken_for_another_accounts() -> None:
    other = BODY.replace(b"123456", b"999999")
    late: Script = [
        read_request,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        lambda _: time.sleep(0.2),
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(other) + other,
        hang,
    ]
    then: Script = [read_request, lambda _: time.sleep(0.3), WHOLE]
    with FaultServer([late, then]) as server:
        outcomes = dict(fetch_from(accounts(2, local(server.port)), max_concurrency=1))
    assert errors_in([*outcomes.items()]) == {}
    found = [o.amounts.balance10000 for o in outcomes.values() if isinstance(o, Balance)]
    assert found == [999999, 123456]


@pytest.mark.slow
@pytest.mark.parametrize("bad_one", ["hangs", "sends Retry-After"])
def test_one_host_does_not_hold_back_another(bad_one: str) -> None:
    scripts: list[Script] = [http(429, headers={"Retry-After": "2"}), http(200, BODY)]
    if bad_one == "hangs":
        scripts = [(read_request, hang)]
    with FaultServer(scripts) as bad, FaultServer([http(200, BODY)]) as good:
        pairs = zip(accounts(12, local(bad.port)), accounts(12, local(good.port), "b"), strict=True)
        listed = [account for pair in pairs for account in pair]
        outcomes = fetch_from(listed, max_concurrency=8, request_timeout=1.5, max_attempts=2)
        moments = [moment - bad.accepted[0] for moment in good.accepted]
    assert {name[0] for name in errors_in(outcomes)} <= {"a"}
    # With their share of the places, they are complete before the time of the others is up.
    assert len(moments) == 12
    assert max(moments) < 1.4


@pytest.mark.slow
def test_a_host_that_is_down_costs_one_accounts_attempts_and_leaves_other_hosts_alone() -> None:
    with socket.socket() as dead, FaultServer([http(200, BODY)]) as server:
        dead.bind(("127.0.0.1", 0))
        down = local(dead.getsockname()[1])
        _, alone = timed(accounts(1, down), max_attempts=3)
        both = accounts(300, down) + accounts(20, local(server.port), "b")
        outcomes, together = timed(both, max_attempts=3)
    errors = errors_in(outcomes)
    assert errors.keys() == {f"a{i}" for i in range(300)}
    skipped = [text for text in errors.values() if text.startswith("skipped: ")]
    assert 280 <= len(skipped) < 300
    assert skipped[0].endswith("could not be reached for any of the previous accounts")
    # 300 accounts, 8 at a time, one after the other, would take about 37 times as long.
    assert together < 10 * alone


@pytest.mark.parametrize(
    ("failing", "failed"),
    [(range(3), 60), (range(2), 2), (range(1, 32), 31), (range(1, 60), 59)],
    ids=["3 at first", "2 at first", "31 after a connection", "all after a connection"],
)
def test_a_host_is_down_after_so_many_accounts_in_a_row_could_not_connect(
    respond_with: Respond, failing: range, failed: int
) -> None:
    requested: list[str] = []

    def fetch(name: str) -> Balance:
        requested.append(name)
        if int(name[1:]) in failing:
            fail(unreachable=True)
        return GOOD

    respond_with(fetch)
    outcomes = fetch_from(accounts(60), max_concurrency=1, max_attempts=1)
    assert len(errors_in(outcomes)) == failed
    assert len(requested) == {60: 3, 59: 33}.get(failed, 60)


def test_one_that_took_the_connection_is_not_down(respond_with: Respond) -> None:
    def fetch(name: str) -> Balance:
        if int(name[1:]) < 50:
            fail(timed_out=True)
        return GOOD

    respond_with(fetch)
    outcomes = fetch_from(accounts(60), max_concurrency=1, max_attempts=1)
    assert len(outcomes) == 60
    assert len(errors_in(outcomes)) == 50
    assert not any("skipped" in text for text in errors_in(outcomes).values())


def test_one_that_could_not_connect_holds_back_no_other_of_its_host(respond_with: Respond) -> None:
    all_others_done = threading.Event()
    waited: list[bool] = []

    def fetch(name: str) -> Balance:
        number = int(name[1:])
        if number == 0:
            fail(unreachable=True)
        if number < 5:  # they hang until the last account has had its turn
            waited.append(all_others_done.wait(20))
        if number == 29:
            all_others_done.set()
        return GOOD

    respond_with(fetch)
    assert len(fetch_from(accounts(30), max_concurrency=6, max_attempts=1)) == 30
    assert waited == [True] * 4


def test_a_host_that_cannot_be_reached_is_tried_by_a_few_accounts_at_a_time(
    respond_with: Respond,
) -> None:
    requested: dict[str, int] = {}

    def fetch(name: str) -> Balance:
        requested[name] = requested.get(name, 0) + 1
        if sum(requested.values()) <= 10:
            fail(unreachable=True)
        return GOOD

    respond_with(fetch)
    with standing_still():
        outcomes = fetch_from(accounts(100), max_concurrency=2, max_attempts=9, max_elapsed=1000)
    assert errors_in(outcomes) == {}
    assert sum(count > 1 for count in requested.values()) <= 4


@pytest.mark.slow
def test_a_429_with_retry_after_holds_back_every_account_of_the_host() -> None:
    slow = http(429, headers={"Retry-After": "1"})
    # The others take their time, so that the pause is known before the next requests.
    with FaultServer([slow, (read_request, lambda _: time.sleep(0.3), WHOLE)]) as server:
        outcomes = fetch_from(accounts(40, local(server.port)))
        first, *later = server.accepted
        # Those that were on their way when the response came could not know.
        early = [moment for moment in later if moment - first < 0.9]
    assert errors_in(outcomes) == {}
    assert len(server.accepted) == 41
    assert len(early) <= 7


@pytest.mark.slow
def test_a_429_beyond_max_elapsed_fails_the_others_without_a_request() -> None:
    with FaultServer([http(429, headers={"Retry-After": "3600"})]) as server:
        outcomes, took = timed(accounts(100, local(server.port)))
        requested = len(server.accepted)
    assert requested <= 16
    assert took < 10
    texts = [str(outcome) for _, outcome in outcomes]
    assert all("; the server asked to wait 3" in text for text in texts)
    limited = "is rate limiting (it sent Retry-After for another account) (0 attempts"
    assert sum(limited in text for text in texts) >= 84


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
    names = [record["account"] for record in run.records]
    assert len(names) == 10_000
    assert set(names) == {f"a{i}" for i in range(10_000)}
    assert len(run.of_type("SCHEMA")) == len(run.of_type("STATE")) == 1
    assert len(run.stdout.splitlines()[-1]) <= 200
    assert len(run.stderr) <= 2000


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGTERM", "reader gone"])
def test_an_end_in_mid_run_sends_few_requests_more(tmp_path: Path, end: str) -> None:
    with FaultServer([(read_request, lambda _: time.sleep(0.05), WHOLE)]) as server:
        settings = {
            "accounts": [
                {"account": f"a{number}", "dev_key": "k", "dev_secret": "s"}
                for number in range(500)
            ],
            "base_url": local(server.port),
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
        # What the reader had in front of it was requested already.
        assert len(server.requests) - before <= 2 * 8
