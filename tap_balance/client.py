"""How the balance of one account is requested, and what the response means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, NamedTuple

import pendulum
import requests
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from tap_balance.accounts import Account
from tap_balance.amounts import Amounts, WrongShapeError, parse_body, read_otp, read_sms
from tap_balance.auth import basic_auth, secrets_of
from tap_balance.config import Product
from tap_balance.errors import AccountError, RetriableError, api_error, connection_error, safe_text
from tap_balance.transport import LARGEST_BODY, Adapter, attempt, tls_context

_READERS: Mapping[Product, Callable[[Any], Amounts]] = {"sms": read_sms, "otp": read_otp}
_RETRY = Retry(retry_after_max=10**12)  # only `max_elapsed` limits how long the tap waits


class Balance(NamedTuple):
    """What one account has left, and when the response had arrived, UTC."""

    amounts: Amounts
    observed_at: pendulum.DateTime


class BalanceClient:
    """Requests balances. Nothing of one account stays in it, so threads may share it.

    Args:
        accounts: All accounts of the run; only their URLs matter here.
        max_concurrency: Connections to one host at most.

    Raises:
        SettingsError: A CA bundle from the environment cannot be read.
    """

    def __init__(self, accounts: Sequence[Account], max_concurrency: int) -> None:
        hosts = {account.url: account.host for account in accounts}
        size = len(set(hosts.values())), min(max_concurrency, max(len(accounts), 1))
        self._session = requests.Session()
        self._session.mount("http://", Adapter(*size))
        if any(url.startswith("https:") for url in hosts):
            self._session.mount("https://", Adapter(*size, tls_context()))
        self._headers = {
            "Accept": "application/json",
            "User-Agent": f"tap-balance/{version('tap-balance')}",
        }

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def fetch(self, account: Account, seconds: float) -> Balance:
        """Request the balance of an account, once.

        Args:
            account: Whose balance to request.
            seconds: For the whole attempt, from connecting to the last byte.

        Raises:
            AccountError: The response is not a balance, or none came. It is a `RetriableError`
                if another attempt may help.
        """
        request = requests.PreparedRequest()
        # Not prepared by `requests`, which costs as much as sending it: the URL is already so.
        request.method, request.url = "GET", account.url
        headers = self._headers | {"Authorization": basic_auth(account)}
        request.headers = headers  # type: ignore[assignment]
        # Not `Session.send`: it stores cookies, and looks at where a redirect leads.
        adapter = self._session.get_adapter(account.url)
        attempt.begin(seconds)
        try:
            with adapter.send(request, timeout=seconds) as response:
                body: bytes = response.raw.read(LARGEST_BODY + 1, decode_content=True)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # urllib3 lets ValueErrors of http.client through, such as that about a chunk of
            # negative size.
            known = account.host, secrets_of(account)
            failure = connection_error(error, *known, connected=attempt.connected)
        else:
            observed_at = pendulum.now("UTC")
            return Balance(parse_response(response, body, account), observed_at)
        # Out here it has no context: the libraries' errors keep sockets open, and their texts may
        # repeat what a proxy or a server sent, whatever that was.
        raise failure


def parse_response(response: requests.Response, body: bytes, account: Account) -> Amounts:
    """Decide what a response with this body is: a balance, or which error.

    Raises:
        AccountError: It is not a balance. It is a `RetriableError` if another attempt may help.
    """
    ok = response.status_code == requests.codes.ok
    document: Any = None
    problem = f"longer than {LARGEST_BODY} bytes"
    try:
        if len(body) <= LARGEST_BODY:
            document = parse_body(body)
            if ok:
                return _READERS[account.product](document)
    except WrongShapeError as error:
        problem = str(error)
    except ValueError:
        if ok:
            raise RetriableError(
                f"HTTP 200 with a body that is not JSON ({len(body)} bytes)",
                "Something between here and the API may have responded (a proxy, a login page); "
                "check base_url.",
            ) from None
    # The API's envelope of an error: `{"code": <int>, "message": <string>}`.
    envelope = document if isinstance(document, dict) else {}
    code, message = envelope.get("code"), envelope.get("message")
    if type(code) is not int:
        code = None
    if ok and code is None:
        raise AccountError(
            f"HTTP 200, but not a balance: {problem}",
            "No record is written. Check base_url and product of this account; "
            "if they are right, report it to the tap's maintainers.",
        )
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
