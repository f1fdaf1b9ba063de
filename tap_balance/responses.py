"""What a response of the API means: a balance, or which error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import pendulum
import requests
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from tap_balance.accounts import Account
from tap_balance.amounts import Amounts, WrongShapeError, parse_body, read_otp, read_sms
from tap_balance.auth import secrets_of
from tap_balance.config import Product
from tap_balance.errors import AccountError, RetriableError, api_error, safe_text
from tap_balance.transport import LARGEST_BODY

_READERS: Mapping[Product, Callable[[Any], Amounts]] = {"sms": read_sms, "otp": read_otp}
_RETRY = Retry(retry_after_max=10**12)  # only `max_elapsed` limits how long the tap waits


class Balance(NamedTuple):
    """What one account has left, and when the response had arrived, UTC."""

    amounts: Amounts
    observed_at: pendulum.DateTime


def parse_response(response: requests.Response, body: bytes | None, account: Account) -> Amounts:
    """Decide what a response is: a balance, or which error. A body that is too long is None.

    Raises:
        AccountError: It is not a balance. It is a `RetriableError` if another attempt may help.
    """
    ok = response.status_code == requests.codes.ok
    document: Any = None
    problem = f"longer than {LARGEST_BODY} bytes"
    try:
        if body is not None:
            document = parse_body(body)
            if ok:
                return _READERS[account.product](document)
    except WrongShapeError as error:
        problem = str(error)
    except ValueError:
        if ok:
            happened = f"HTTP 200 with a body that is not JSON ({len(body or b'')} bytes)"
            next_step = (
                "Something between here and the API may have responded (a proxy, a login page); "
                "check base_url."
            )
            raise RetriableError(happened, next_step) from None
    # The API's envelope of an error: `{"code": <int>, "message": <string>}`.
    envelope = document if isinstance(document, dict) else {}
    code, message = envelope.get("code"), envelope.get("message")
    if type(code) is not int:
        code = None
    if ok and code is None:
        happened = f"HTTP 200, but not a balance: {problem}"
        next_step = (
            "No record is written. Check base_url and product of this account; "
            "if they are right, report it to the tap's maintainers."
        )
        raise AccountError(happened, next_step)
    message = safe_text(message, secrets_of(account)) if isinstance(message, str) else None
    raise api_error(response.status_code, code, message, _read_retry_after(response))


def _read_retry_after(response: requests.Response) -> float | None:
    """Read `Retry-After`: seconds from now, or None if it says nothing that lies ahead."""
    text = response.headers.get("Retry-After", "")[:100]  # `int` refuses thousands of digits
    try:
        if not text.strip().isdigit():
            parsedate_to_datetime(text)  # refuses a 99th hour, which urllib3 adds up
        return _RETRY.parse_retry_after(text) or None
    except (HTTPError, ValueError, OverflowError):
        return None
