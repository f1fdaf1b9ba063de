"""What a response of the API means: a balance, or which error."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import requests
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from tap_balance import amounts
from tap_balance.auth import secrets_of
from tap_balance.errors import AccountError, RetriableError, api_error, safe_text
from tap_balance.transport import LARGEST_BODY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pendulum

    from tap_balance.accounts import Account
    from tap_balance.config import Product

_READERS: Mapping[Product, Callable[[Any], amounts.Amounts]] = {
    "sms": amounts.read_sms,
    "otp": amounts.read_otp,
}

_RETRY = Retry(retry_after_max=10**12)  # only `max_elapsed` limits how long the tap waits


class Balance(NamedTuple):
    """What one account has left, and when the response had arrived, UTC."""

    amounts: amounts.Amounts
    observed_at: pendulum.DateTime


def parse_response(
    response: requests.Response, body: bytes | None, account: Account
) -> amounts.Amounts:
    """Decide what a response is: a balance, or which error. A body that is too long is None.

    Raises:
        AccountError: It is not a balance. It is a `RetriableError` if another attempt may help.
    """
    status = response.status_code
    problem = f"longer than {LARGEST_BODY} bytes"
    if status == requests.codes.ok and body is not None:
        try:
            return _amounts_in(body, account.product)
        except amounts.NotJSONError:
            happened = f"HTTP 200 with a body that is not JSON ({len(body)} bytes)"
            next_step = (
                "Something between here and the API may have responded (a proxy, a login page); "
                "check base_url."
            )
            raise RetriableError(happened, next_step) from None
        except amounts.WrongShapeError as error:
            problem = str(error)
    code, message = _api_code(body or b"", account)
    if status == requests.codes.ok and code is None:
        happened = f"HTTP 200, but not a balance: {problem}"
        next_step = (
            "No record is written. Check base_url and product of this account; "
            "if they are right, report it to the tap's maintainers."
        )
        raise AccountError(happened, next_step)
    raise api_error(status, code, message, _read_retry_after(response))


def _amounts_in(body: bytes, product: Product) -> amounts.Amounts:
    document = amounts.parse_body(body)
    if isinstance(document, dict) and document.get("code") not in (None, 0):
        # Some servers fill the other fields of an error with zeros, which are no balance.
        msg = "it has an error code"
        raise amounts.WrongShapeError(msg)
    return _READERS[product](document)


def _api_code(body: bytes, account: Account) -> tuple[int | None, str | None]:
    """Read the API's error envelope, `{"code": <int>, "message": <string>}`, if it is one."""
    try:
        envelope = amounts.parse_body(body)
    except ValueError:
        return None, None
    if not isinstance(envelope, dict):
        return None, None
    code, message = envelope.get("code"), envelope.get("message")
    return (
        code if type(code) is int else None,
        safe_text(message, secrets_of(account)) if isinstance(message, str) else None,
    )


def _read_retry_after(response: requests.Response) -> float | None:
    """Read `Retry-After`: seconds from now, or None if it says nothing that lies ahead."""
    text = response.headers.get("Retry-After", "")[:100]  # `int` refuses thousands of digits
    try:
        if not text.strip().isdigit():
            parsedate_to_datetime(text)  # refuses a 99th hour, which urllib3 adds up
        seconds = _RETRY.parse_retry_after(text)
    except (HTTPError, ValueError, OverflowError):
        return None
    return seconds or None
