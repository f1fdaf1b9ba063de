"""One account asked: the request, the tries, the waits, and the line that says what went wrong."""

from __future__ import annotations

import datetime as dt
import email.utils
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests
from clock import standing_still
from documented import SMS
from fetching import fetch, mocked_api

from tap_balance.accounts import Account
from tap_balance.auth import secrets_of
from tap_balance.errors import AccountError, RetriableError, safe_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clock import Clock

URL = "https://balance.example/v1/balance"
ACCOUNT = Account("main", "fake-key", "fake-secret", "sms", URL)
BASIC = "ZmFrZS1rZXk6ZmFrZS1zZWNyZXQ="


@pytest.fixture
def clock() -> Iterator[Clock]:
    with standing_still() as clock:
        yield clock


def test_one_get_with_basic_gives_the_amounts() -> None:
    with mocked_api() as api:
        api.register_uri("GET", URL, json=SMS, headers={"Set-Cookie": "a=b"})
        assert fetch(ACCOUNT).amounts.balance10000 == 123456
        sent = api.last_request
    assert sent is not None
    assert sent.headers["Authorization"] == f"Basic {BASIC}"
    assert sent.headers["User-Agent"].startswith("tap-balance/")
    assert "Cookie" not in sent.headers
    assert sent.body is None


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("status", "code", "tries", "words"),
    [
        (500, 1000, 3, "internal error of the API"),
        (401, 2001, 1, "authentication failed: wrong key or secret"),
        (401, 2002, 1, "authentication failed: the key has expired or is disabled"),
        (403, 2002, 1, "the merchant of this account has been deleted"),
        (403, 2004, 1, "the key may not call this API"),
        (401, 7777, 1, "authentication failed"),
        (403, 7777, 1, "access refused"),
        (400, 1, 1, "an unexpected status"),
        (404, 1, 1, "no such address"),
        (418, 1, 1, "an unexpected status"),
        (429, 1, 3, "too many requests"),
        (502, 1, 3, "bad gateway"),
        (503, 1, 3, "service unavailable"),
        (504, 1, 3, "gateway timeout"),
        (302, 1, 1, "a redirect, which is never followed"),
        (204, 1, 1, "an unexpected status"),
        (200, 2001, 1, "an error instead of a balance"),
    ],
)
def test_status_and_code_decide_the_line_and_the_tries(
    status: int, code: int, tries: int, words: str
) -> None:
    with mocked_api() as api:
        api.register_uri(
            "GET",
            URL,
            status_code=status,
            json={"code": code, "message": "said so"},
            headers={"Location": "https://elsewhere.example/v1/balance"},
        )
        with pytest.raises(AccountError) as failure:
            fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
        assert api.call_count == tries
    line = failure.value.line("main")
    assert line.startswith(f"account 'main': HTTP {status}, code {code} (said so): {words}")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [("2", 2.0), ("0", None), ("-3", None), ("soon", None), ("", None), ("1.5", None)],
)
def test_retry_after_in_seconds_is_waited_for(
    clock: Clock, retry_after: str, wait: float | None
) -> None:
    with mocked_api() as api:
        api.register_uri(
            "GET",
            URL,
            [{"status_code": 429, "headers": {"Retry-After": retry_after}}, {"json": SMS}],
        )
        fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
    if wait is None:
        assert 0.5 <= clock.waited <= 1
    else:
        assert clock.waited == pytest.approx(wait)


def test_retry_after_as_a_date_is_waited_for(
    clock: Clock,
) -> None:
    moment = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=30)
    header = {"Retry-After": email.utils.format_datetime(moment, usegmt=True)}
    with mocked_api() as api:
        api.register_uri("GET", URL, [{"status_code": 503, "headers": header}, {"json": SMS}])
        fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
    assert 20 < clock.waited <= 30


def test_a_wait_beyond_max_elapsed_ends_the_tries_at_once(
    clock: Clock,
) -> None:
    with mocked_api() as api:
        api.register_uri("GET", URL, status_code=429, headers={"Retry-After": "3600"})
        with pytest.raises(RetriableError, match="asked to wait 3600 s, longer than max_elapsed"):
            fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
        assert api.call_count == 1
    assert clock.waited == 0


@pytest.mark.usefixtures("clock")
def test_a_page_instead_of_json_is_retried_and_then_an_error() -> None:
    with mocked_api() as api:
        api.register_uri("GET", URL, text="<html>log in</html>")
        with pytest.raises(RetriableError, match="a body that is not JSON") as failure:
            fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
        assert api.call_count == 3
    assert "log in</html>" not in failure.value.line("main")


@pytest.mark.parametrize(
    "message",
    [
        f"bad fake-secret {'x' * 200}",
        f"no {BASIC}",
        "x" * 155 + "fake-secret",
        "a\nb\x1b[2J\u2028c",
    ],
)
def test_a_message_of_the_api_is_shown_short_printable_and_without_secrets(message: str) -> None:
    with mocked_api() as api:
        api.register_uri("GET", URL, status_code=401, json={"code": 2001, "message": message})
        with pytest.raises(AccountError) as failure:
            fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
    line = failure.value.line("main")
    assert "fake-sec" not in line
    assert BASIC not in line
    assert line.isprintable()
    assert len(line) < 500


@pytest.mark.parametrize(
    "disguised",
    [
        "Ab%2fCd%2B", "Ab%252FCd+", "Ab\\/Cd+", "\\u0041b/Cd+", "Ab&#47;Cd+", "Ab&#x2F;Cd&#43;",
        "QWIvQ2Qr", "QWIvQ2Qr==", "azpBYi9DZCs=", "azpBYi9DZCs%3D", "Ab%2FCd%2B",
    ],
)  # fmt: skip
def test_a_message_that_holds_the_secret_in_disguise_is_not_shown(disguised: str) -> None:
    account = Account("a", "k", "Ab/Cd+", "sms", URL)
    for text in (disguised, f"bad {disguised} here", disguised * 3):
        shown = safe_text(text, secrets_of(account))
        assert disguised.rstrip("=") not in shown
        assert "***" in shown
    assert safe_text("50% off + more", secrets_of(account)) == "50% off + more"


@pytest.mark.usefixtures("clock")
def test_the_host_that_refuses_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        account = Account("a", "k", "s", "sms", f"http://127.0.0.1:{port}/v1/balance")
        with pytest.raises(RetriableError, match="refused the connection") as failure:
            fetch(account, max_attempts=3)
    assert f"127.0.0.1:{port}" in failure.value.happened
    assert "(3 attempts in " in failure.value.happened


@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_that_trickles_is_bounded_as_a_whole(part: str) -> None:
    start = {
        "headers": b"HTTP/1.1 200 OK\r\nX: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
    }[part]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(start)
                for _ in range(100):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return
                    time.sleep(0.1)

        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1/balance"
        account = Account("a", "k", "s", "sms", url)
        began = time.monotonic()
        with pytest.raises(RetriableError, match="timed out waiting for a complete response"):
            fetch(account, request_timeout=0.5, max_attempts=1)
        assert time.monotonic() - began < 5
        thread.join()


def test_netrc_never_speaks_for_an_account(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine balance.example login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with mocked_api() as api:
        api.register_uri("GET", URL, json=SMS)
        fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
        assert api.last_request is not None
        assert api.last_request.headers["Authorization"] == f"Basic {BASIC}"


@pytest.mark.usefixtures("clock")
def test_a_connection_that_breaks_is_tried_again() -> None:
    with mocked_api() as api:
        api.register_uri("GET", URL, [{"exc": requests.ConnectionError}, {"json": SMS}])
        assert fetch(ACCOUNT, max_attempts=3, max_elapsed=60).amounts.total_balance10000 == 143456
