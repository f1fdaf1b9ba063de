"""How the balance of one account is requested: one attempt."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit

import pendulum
import requests
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from tap_balance import transport
from tap_balance.accounts import Account, is_loopback
from tap_balance.auth import basic_auth, secrets_of
from tap_balance.errors import connection_error
from tap_balance.responses import Balance, parse_response


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
        self._session.mount("http://", transport.Adapter(*size))
        if any(url.startswith("https:") for url in hosts):
            self._session.mount("https://", transport.Adapter(*size, transport.tls_context()))
        self._proxies = {url: _proxies_for(url) for url in hosts}
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
        transport.attempt.begin(seconds)
        try:
            proxies = self._proxies[account.url]
            response = adapter.send(request, timeout=seconds, proxies=proxies)
            body = transport.read_body(response)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # urllib3 lets ValueErrors of http.client through, such as that about a chunk of
            # negative size.
            connected = transport.attempt.connected
            failure = connection_error(
                error, account.host, secrets_of(account), connected=connected
            )
        else:
            observed_at = pendulum.now("UTC")
            return Balance(parse_response(response, body, account), observed_at)
        # Out here it has no context: the libraries' errors keep sockets open, and their texts may
        # repeat what a proxy or a server sent, whatever that was.
        raise failure


def _proxies_for(url: str) -> dict[str, str]:
    """Take the proxies for a URL from the environment; loopback is never behind one."""
    host = urlsplit(url).hostname or ""
    return {} if is_loopback(host) else get_environ_proxies(url)
