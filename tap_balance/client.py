"""One GET for one account, with its time limits and retries."""

from __future__ import annotations

import datetime as dt
import email.utils
import socket
import ssl
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pendulum
import requests
import tenacity
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError, NewConnectionError

from tap_balance import amounts, transport
from tap_balance.accounts import is_loopback
from tap_balance.auth import authenticator_for, secrets_of
from tap_balance.errors import TOO_MANY, AccountError, RetriableError, api_error, safe_text
from tap_balance.hosts import Host

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tap_balance.accounts import Account, Product
    from tap_balance.shutdown import Shutdown

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection at most."""

# Half a second, one, two, ... and a random half, so that many accounts do not come back at once.
_BACKOFF = tenacity.wait_exponential(multiplier=0.5, max=30) + tenacity.wait_random(0, 0.5)
_READERS: Mapping[Product, Callable[[Any], amounts.Amounts]] = {
    "sms": amounts.read_sms,
    "otp": amounts.read_otp,
}


class Answer(NamedTuple):
    """What the API said about one account.

    Attributes:
        amounts: The exact amounts.
        observed_at: When the answer had arrived, UTC.
    """

    amounts: amounts.Amounts
    observed_at: pendulum.DateTime


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
            raise _down(account)
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
                    timeout=(min(CONNECT_TIMEOUT, seconds), seconds),
                    proxies=self._proxies[account.url],
                    allow_redirects=False,
                    stream=True,
                )
                host.answered()
                body = transport.read_body(response)
        except transport.BodyTooLargeError:
            msg = f"longer than {transport.LARGEST_BODY} bytes"
            raise _not_a_balance(msg) from None
        except (requests.RequestException, HTTPError, ValueError) as error:
            # `requests` lets some of urllib3's errors through, and urllib3 the ValueErrors of
            # http.client, such as that about a chunk of negative size. Not `from error`: their
            # texts may repeat what a proxy or a server said, whatever that was.
            raise _connection_error(error, account, silent=response is None) from None
        observed_at = pendulum.now("UTC")
        if response.status_code == requests.codes.too_many and (wait := _retry_after(response)):
            host.hold(wait)
        return Answer(_judge(response, body, account), observed_at)


def _judge(response: requests.Response, body: bytes, account: Account) -> amounts.Amounts:
    """Decide what an answer is: a balance, or which error.

    Raises:
        AccountError: It is not a balance.
    """
    status = response.status_code
    if status != requests.codes.ok:
        code, message = _api_code(body, account)
        raise api_error(status, code, message, _retry_after(response))
    try:
        return _amounts_in(body, account.product)
    except amounts.NotJSONError:
        happened = f"HTTP 200 with a body that is not JSON ({len(body)} bytes)"
        next_step = (
            "Something between here and the API may have answered (a proxy, a log-in page); "
            "check base_url."
        )
        raise RetriableError(happened, next_step) from None
    except amounts.WrongShapeError as error:
        code, message = _api_code(body, account)
        if code is not None:
            raise api_error(status, code, message) from None
        raise _not_a_balance(str(error)) from None


def _amounts_in(body: bytes, product: Product) -> amounts.Amounts:
    document = amounts.parse_body(body)
    if isinstance(document, dict) and document.get("code", 0) != 0:
        # Some servers fill the other fields of an error with zeros, which are no balance.
        msg = "it has an error code"
        raise amounts.WrongShapeError(msg)
    return _READERS[product](document)


def _not_a_balance(reason: str) -> AccountError:
    return AccountError(
        f"HTTP 200, but not a balance: {reason}",
        "No record is written. Check base_url and product of this account; "
        "if they are right, report it to the tap's maintainers.",
    )


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
        code if isinstance(code, int) and not isinstance(code, bool) else None,
        safe_text(message, secrets_of(account)) if isinstance(message, str) else None,
    )


def _retry_after(response: requests.Response) -> float | None:
    """Read `Retry-After` (RFC 9110, section 10.2.3): whole seconds, or an HTTP date.

    Returns:
        Seconds from now, or None if there is nothing usable or the moment has passed.
    """
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.timezone.utc)
        seconds = (moment - dt.datetime.now(dt.timezone.utc)).total_seconds()
    return seconds if seconds > 0 else None


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RetriableError) and error.retry_after is not None:
        return error.retry_after
    return _BACKOFF(state)


def _proxies_for(url: str) -> dict[str, str]:
    """Take the proxies for a URL from the environment; loopback is never behind one."""
    host = urlsplit(url).hostname or ""
    return {} if is_loopback(host) else get_environ_proxies(url)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error down to what the operating system said."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        current = todo.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [getattr(current, "reason", None), current.__cause__, current.__context__]
        todo += current.args


# Looked up in this order: the first kind that is among the causes names the failure.
_FAILURES: tuple[tuple[type[BaseException], str], ...] = (
    (requests.exceptions.ProxyError, "the proxy did not connect to {host}"),
    (socket.gaierror, "unknown host {host}"),
    (requests.ConnectTimeout, "no connection to {host} in time"),
    (requests.ReadTimeout, "no complete answer from {host} in time"),
    (TimeoutError, "no complete answer from {host} in time"),
    (ConnectionRefusedError, "{host} refused the connection"),
    (ssl.SSLError, "no TLS connection to {host}"),
    (requests.exceptions.ContentDecodingError, "the answer of {host} is compressed wrongly"),
    (requests.exceptions.InvalidHeader, "the answer of {host} is not proper HTTP"),
    (NewConnectionError, "no connection to {host}"),
    (BaseException, "the connection to {host} broke before the answer was complete"),
)


_CHECK_NETWORK = (
    "Check the network from this machine, base_url, and HTTPS_PROXY and NO_PROXY if there is a "
    "proxy."
)
_UNASKABLE = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,  # InvalidProxyURL is one
    requests.exceptions.MissingSchema,
)


def _connection_error(error: Exception, account: Account, *, silent: bool) -> AccountError:
    """Say in a few words why no answer came; the libraries' own texts run over many lines."""
    host = urlsplit(account.url).netloc
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = safe_text(cause.verify_message, secrets_of(account))
            return AccountError(
                f"the certificate of {host} is not trusted ({reason})",
                "If your network has a CA of its own, name its file in REQUESTS_CA_BUNDLE; "
                "else check base_url.",
            )
    if isinstance(error, _UNASKABLE):
        return AccountError(
            f"{host} cannot be asked ({type(error).__name__})",
            "Check base_url, and HTTPS_PROXY and ALL_PROXY in the environment.",
        )
    happened = next(
        text for kind, text in _FAILURES if any(isinstance(cause, kind) for cause in causes)
    )
    return RetriableError(happened.format(host=host), _CHECK_NETWORK, silent=silent)


def _down(account: Account) -> AccountError:
    host = urlsplit(account.url).netloc
    return AccountError(
        f"{host} answered no other account in all its tries, so it was not asked for this one",
        _CHECK_NETWORK,
    )
