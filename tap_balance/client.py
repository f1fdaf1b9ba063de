"""How an account is asked: one GET, with its time limits, waits and retries."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pendulum
import requests
import tenacity
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from tap_balance import transport
from tap_balance.accounts import is_loopback
from tap_balance.auth import authenticator_for, secrets_of
from tap_balance.concurrency import Host
from tap_balance.errors import (
    TOO_MANY,
    AccountError,
    RetriableError,
    connection_error,
    host_down,
)
from tap_balance.responses import Answer, judge, not_a_balance, read_retry_after

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from tap_balance.accounts import Account
    from tap_balance.concurrency import Shutdown

_CONNECT_TIMEOUT = 10.0
"""Seconds for a connection at most."""

# Half a second, one, two, ... and a random half, so that many accounts do not come back at once.
_BACKOFF = tenacity.wait_exponential(multiplier=0.5, max=30) + tenacity.wait_random(0, 0.5)


class BalanceClient:
    """Asks for balances. Nothing of one account stays in it, so threads may share it.

    Args:
        accounts: All accounts of the run; only their hosts matter here.
        request_timeout: Seconds for one answer.
        max_attempts: Tries per account.
        max_elapsed: Seconds per account, retries and waits included.
        max_concurrency: Connections to one host at most.
        shutdown: What ends waiting retries.
        logger: Where each try is told, at DEBUG.

    Raises:
        SettingsError: A CA bundle from the environment cannot be read.
    """

    def __init__(  # noqa: PLR0913
        self,
        accounts: Sequence[Account],
        *,
        request_timeout: float,
        max_attempts: int,
        max_elapsed: float,
        max_concurrency: int,
        shutdown: Shutdown,
        logger: logging.Logger,
    ) -> None:
        self._request_timeout = request_timeout
        self._max_elapsed = max_elapsed
        self._shutdown = shutdown
        self._logger = logger
        self._session = transport.Session()
        connections = min(max_concurrency, max(len(accounts), 1))
        self._session.mount("http://", transport.Adapter(connections))
        urls = {account.url for account in accounts}
        if any(url.startswith("https:") for url in urls):
            context = transport.tls_context()
            self._session.mount("https://", transport.Adapter(connections, context))
        self._proxies = {url: _proxies_for(url) for url in urls}
        headers = {
            "Accept": "application/json",
            "User-Agent": f"tap-balance/{version('tap-balance')}",
        }
        # Prepared once and copied for each account: preparing costs as much as sending.
        self._requests = {
            url: requests.Request("GET", url, headers=headers).prepare() for url in urls
        }
        hosts = {urlsplit(url).netloc: Host() for url in urls}
        self._hosts = {url: hosts[urlsplit(url).netloc] for url in urls}
        self._stop = tenacity.stop_after_attempt(max_attempts) | tenacity.stop_before_delay(
            max_elapsed
        )
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetriableError),
            wait=_wait,
            sleep=shutdown.sleep,
            reraise=True,
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def fetch(self, account: Account) -> Answer:
        """Ask for the balance of one account until there is an answer that decides.

        Raises:
            AccountError: There is no balance to be had. It is a `RetriableError` if only the
                tries or the time ran out.
            RunEndedError: The run ended during a wait between two tries.
        """
        host = self._hosts[account.url]
        if host.down.is_set():
            raise host_down(urlsplit(account.url).netloc)
        start = time.monotonic()
        tries = 0
        # A copy, because the original counts its tries in one place for all threads.
        retrying = self._retrying.copy(stop=self._stop | tenacity.stop_when_event_set(host.down))

        def attempt() -> Answer:
            nonlocal tries
            self._wait_for(host, account, start)
            tries += 1
            remaining = self._max_elapsed - (time.monotonic() - start)
            try:
                return self._ask(account, min(self._request_timeout, max(remaining, 0.001)))
            except AccountError as error:
                self._logger.debug("account %r: try %d: %s", account.name, tries, error)
                raise

        try:
            return retrying(attempt)
        except RetriableError as error:
            if error.silent:
                host.stayed_silent()
            raise self._given_up(error, tries, time.monotonic() - start) from error

    def _wait_for(self, host: Host, account: Account, start: float) -> None:
        """Wait while the host wants to be left alone, as long as the account's time allows.

        Raises:
            RetriableError: It does not; nothing is sent.
            RunEndedError: The run ended meanwhile.
        """
        if pause := host.pause:
            if time.monotonic() - start + pause >= self._max_elapsed:
                happened = f"{urlsplit(account.url).netloc} has told another account to wait"
                raise RetriableError(happened, TOO_MANY, retry_after=pause)
            self._shutdown.sleep(pause)

    def _given_up(self, error: RetriableError, tries: int, seconds: float) -> RetriableError:
        happened = f"{error.happened} (tries: {tries}, seconds: {seconds:.1f}"
        if error.retry_after is not None and seconds + error.retry_after >= self._max_elapsed:
            happened += f"; the server asks to wait {error.retry_after:.0f} s, beyond max_elapsed"
        return RetriableError(f"{happened})", error.next_step, error.retry_after)

    def _ask(self, account: Account, seconds: float) -> Answer:
        """Ask once.

        Args:
            account: Whose balance to ask for.
            seconds: For the whole answer.
        """
        request = authenticator_for(account)(self._requests[account.url].copy())
        response = None
        host = self._hosts[account.url]
        try:
            with transport.deadline(seconds):
                response = self._session.send(
                    request,
                    timeout=(min(_CONNECT_TIMEOUT, seconds), seconds),
                    proxies=self._proxies[account.url],
                    allow_redirects=False,
                    stream=True,
                )
                host.answered()
                body = transport.read_body(response)
        except transport.BodyTooLargeError:
            if response is None or response.status_code == requests.codes.ok:
                msg = f"longer than {transport.LARGEST_BODY} bytes"
                raise not_a_balance(msg) from None
            body = b""  # of an error, the status says enough
        except (requests.RequestException, HTTPError, ValueError) as error:
            # `requests` lets some of urllib3's errors through, and urllib3 the ValueErrors of
            # http.client, such as that about a chunk of negative size. Not `from error`: their
            # texts may repeat what a proxy or a server said, whatever that was.
            netloc = urlsplit(account.url).netloc
            raise connection_error(
                error, netloc, secrets_of(account), silent=response is None
            ) from None
        observed_at = pendulum.now("UTC")
        if response.status_code == requests.codes.too_many and (wait := read_retry_after(response)):
            host.hold(wait)
        return Answer(judge(response, body, account), observed_at)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RetriableError) and error.retry_after is not None:
        return error.retry_after
    return _BACKOFF(state)


def _proxies_for(url: str) -> dict[str, str]:
    """Take the proxies for a URL from the environment; loopback is never behind one."""
    host = urlsplit(url).hostname or ""
    return {} if is_loopback(host) else get_environ_proxies(url)
