"""How the balance of one account is requested: one attempt, its limits, and the wait after it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pendulum
import requests
import tenacity
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from tap_balance import transport
from tap_balance.accounts import is_loopback
from tap_balance.auth import authenticator_for, secrets_of
from tap_balance.errors import RetriableError, connection_error
from tap_balance.responses import Balance, parse_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_balance.accounts import Account

# Half a second, one, two, ... and a random half, so that many accounts do not come back at once.
_BACKOFF = tenacity.wait_exponential(multiplier=0.5, max=30) + tenacity.wait_random(0, 0.5)
_RETRYING = tenacity.Retrying()


class Limits(NamedTuple):
    """How much a run may do, from the settings.

    Attributes:
        request_timeout: Seconds for one attempt, from its start to the last byte.
        max_attempts: Attempts per account.
        max_elapsed: Seconds per account, attempts and the waits between them.
        max_concurrency: Requests in flight at most.
    """

    request_timeout: float
    max_attempts: int
    max_elapsed: float
    max_concurrency: int


class BalanceClient:
    """Requests balances. Nothing of one account stays in it, so threads may share it.

    Args:
        accounts: All accounts of the run; only their URLs matter here.
        max_concurrency: Connections to one host at most.

    Raises:
        SettingsError: A CA bundle from the environment cannot be read.
    """

    def __init__(self, accounts: Sequence[Account], max_concurrency: int) -> None:
        urls = {account.url for account in accounts}
        hosts = len({host_of(url) for url in urls})
        connections = min(max_concurrency, max(len(accounts), 1))
        self._session = requests.Session()
        self._session.mount("http://", transport.Adapter(hosts, connections))
        if any(urlsplit(url).scheme == "https" for url in urls):
            context = transport.tls_context()
            self._session.mount("https://", transport.Adapter(hosts, connections, context))
        self._proxies = {url: _proxies_for(url) for url in urls}
        self._headers = {
            "Accept": "application/json",
            "User-Agent": f"tap-balance/{version('tap-balance')}",
        }
        # As `requests` writes them; preparing each request costs as much as sending it.
        self._urls = {url: requests.Request("GET", url).prepare().url for url in urls}

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
        request.method, request.url = "GET", self._urls[account.url]
        authorization = authenticator_for(account).auth_headers
        request.headers = self._headers | authorization  # type: ignore[assignment]
        # Not `Session.send`: it stores cookies, and looks at where a redirect leads.
        adapter = self._session.get_adapter(account.url)
        with transport.attempt.limited_to(seconds) as attempt:
            try:
                response = adapter.send(
                    request, stream=True, timeout=seconds, proxies=self._proxies[account.url]
                )
                body = transport.read_body(response)
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                # `requests` lets some of urllib3's errors through, and urllib3 the ValueErrors of
                # http.client, such as that about a chunk of negative size.
                failure = connection_error(
                    error, host_of(account.url), secrets_of(account), connected=attempt.connected
                )
            else:
                observed_at = pendulum.now("UTC")
                return Balance(parse_response(response, body, account), observed_at)
        # Out here it has no context: the libraries' errors keep sockets open, and their texts may
        # repeat what a proxy or a server sent, whatever that was.
        raise failure


def host_of(url: str) -> str:
    """Return the host and port of a URL, as shown to users."""
    return urlsplit(url).netloc


def wait_after(error: RetriableError, attempts: int) -> float:
    """Return the seconds to wait after a failed attempt.

    What the server asked for; otherwise more with each attempt.

    Args:
        error: How the attempt failed.
        attempts: Attempts so far.
    """
    if error.retry_after is not None:
        return error.retry_after
    # Only its arithmetic: tenacity itself would sleep in the thread that made the attempt.
    state = tenacity.RetryCallState(_RETRYING, None, (), {})
    state.attempt_number = attempts
    return _BACKOFF(state)


def exhausted(
    error: RetriableError, attempts: int, seconds: float, limits: Limits
) -> RetriableError:
    """Return the error of an account whose attempts or time have run out.

    Args:
        error: How the last attempt failed.
        attempts: Attempts so far.
        seconds: What they and the waits between them took.
        limits: The limits of the run.
    """
    plural = "" if attempts == 1 else "s"
    happened = f"{error.happened} ({attempts} attempt{plural} in {seconds:.1f} s"
    if error.retry_after is not None and seconds + error.retry_after >= limits.max_elapsed:
        happened += f"; the server asked to wait {error.retry_after:.0f} s, longer than max_elapsed"
    return RetriableError(f"{happened})", error.next_step, unreachable=error.unreachable)


def _proxies_for(url: str) -> dict[str, str]:
    """Take the proxies for a URL from the environment; loopback is never behind one."""
    host = urlsplit(url).hostname or ""
    return {} if is_loopback(host) else get_environ_proxies(url)
