"""One account asked: the request, the tries, the waits, and the line that says what went wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
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


@pytest.mark.parametrize("code", [None, 0])
def test_a_code_that_names_no_error_is_not_one(code: int | None) -> None:
    # Servers that write each field of a class write those without a value, too.
    with mocked_api() as api:
        api.register_uri("GET", URL, json=SMS | {"code": code, "message": None})
        assert fetch(ACCOUNT).amounts.balance10000 == 123456


@pytest.mark.parametrize("code", [2001, "2001", True])
def test_amounts_beside_an_error_code_are_not_a_balance(code: object) -> None:
    with mocked_api() as api:
        api.register_uri("GET", URL, json=SMS | {"code": code})
        with pytest.raises(AccountError, match="HTTP 200"):
            fetch(ACCOUNT)


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [
        ("2", 2.0),
        ("0", None),
        ("-3", None),
        ("soon", None),
        ("", None),
        ("1.5", None),
        ("Fri, 27 Nov 2026 99:99:99 GMT", None),
    ],
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


def test_a_wait_beyond_max_elapsed_ends_the_tries_at_once(
    clock: Clock,
) -> None:
    with mocked_api() as api:
        api.register_uri("GET", URL, status_code=429, headers={"Retry-After": "3600"})
        with pytest.raises(RetriableError, match="asked to wait 3600 s, longer than max_elapsed"):
            fetch(ACCOUNT, max_attempts=3, max_elapsed=60)
        assert api.call_count == 1
    assert clock.waited == 0


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


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("secret", ['p\u00e4"ss', "a\\b", "tab\tin", "\U0001f600 smile"])
def test_a_secret_that_json_has_escaped_is_not_shown(secret: str, raw: bool) -> None:  # noqa: FBT001
    account = Account("a", "k", secret, "sms", URL)
    escaped = json.dumps({"key": secret}, ensure_ascii=not raw)
    assert safe_text(f"bad {escaped}", secrets_of(account)) == "***"
