"""Why no answer came: what the libraries and the system raise, as an error for the user."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NewConnectionError

from tap_balance.auth import secrets_of
from tap_balance.errors import AccountError, RetriableError, safe_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_balance.accounts import Account

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


def connection_error(error: Exception, account: Account, *, silent: bool) -> AccountError:
    """Say in a few words why no answer came; the libraries' own texts run over many lines.

    Args:
        error: What `requests` or urllib3 raised.
        account: Whose balance was asked for.
        silent: Whether not even the beginning of an answer came.

    Returns:
        A `RetriableError` if trying again may help, else an `AccountError`.
    """
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


def host_down(account: Account) -> AccountError:
    """Say why an account was not asked for: its host answers nobody.

    Args:
        account: Whose balance is not asked for.
    """
    host = urlsplit(account.url).netloc
    return AccountError(
        f"{host} answered no other account in all its tries, so it was not asked for this one",
        _CHECK_NETWORK,
    )


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
