"""What can go wrong: one table for the API's responses, and errors that carry a line to log."""

from __future__ import annotations

import html
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, unquote_plus

import requests
from singer_sdk.exceptions import ConfigurationError
from urllib3.exceptions import DecodeError, InvalidHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

_MASK = "***"
_LONGEST_MESSAGE = 100
_JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class SettingsError(ConfigurationError):
    """The settings are invalid; no requests were sent.

    Args:
        problems: One line each. A line names the setting and never shows its value.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class AccountError(Exception):
    """One account gave no balance, and another attempt would not help.

    Args:
        happened: What happened, in the words of the one who reads the log.
        next_step: What the reader can do about it.
        unreachable: Whether no connection to the host could be made.
    """

    def __init__(self, happened: str, next_step: str, *, unreachable: bool = False) -> None:
        super().__init__(happened)
        self.happened = happened
        self.next_step = next_step
        self.unreachable = unreachable

    def line(self, account: str) -> str:
        """Report in one line which account failed, what happened and what to do next.

        Args:
            account: Name of the account; written with `repr`, so that it stays on one line.
        """
        return f"account {account!r}: {self.happened}. {self.next_step}"


class RetriableError(AccountError):
    """One account gave no balance this time; another attempt may help.

    Args:
        happened: What happened.
        next_step: What the reader can do if it stays like that.
        retry_after: Seconds that the server asked to wait, or None.
        rate_limited: Whether that holds for all accounts of the host.
        timed_out: Whether the attempt took all its time.
        unreachable: Whether no connection to the host could be made.
    """

    def __init__(  # noqa: PLR0913
        self,
        happened: str,
        next_step: str,
        *,
        retry_after: float | None = None,
        rate_limited: bool = False,
        timed_out: bool = False,
        unreachable: bool = False,
    ) -> None:
        super().__init__(happened, next_step, unreachable=unreachable)
        self.retry_after = retry_after
        self.rate_limited = rate_limited
        self.timed_out = timed_out


class AccountsFailedError(Exception):
    """Some accounts gave no balance, as was logged; all that was read has been written to stdout.

    Args:
        count: How many.
    """


class RunEndedError(BaseException):
    """The run has to end at once: a signal came, or nobody reads stdout any more.

    It is not an `Exception`, so that nothing on its way takes it for the failure of one account.

    Args:
        message: What ended the run.
        exit_status: The status that the process exits with.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class _Rule(NamedTuple):
    meaning: str
    next_step: str


_LATER = "This usually resolves by the next run; if it persists, contact EngageLab support."
_TOO_MANY = "Lower max_concurrency or run less often."
_CHECK_KEY = (
    "Check dev_key and dev_secret of this account, and that base_url belongs to its product."
)
_CHECK_URL = "Check base_url and product of this account."
_CHECK_NETWORK = (
    "Check the network from this machine, base_url, and HTTPS_PROXY and NO_PROXY if there is a "
    "proxy."
)

# "EngageLab SMS: Query Balance", table of errors. The same code means different things under
# different HTTP statuses (2002), so a rule needs both; (status, None) is for codes not listed.
RULES: dict[tuple[int, int | None], _Rule] = {
    (500, 1000): _Rule("internal error of the API", _LATER),
    (401, 2001): _Rule("authentication failed: wrong key or secret", _CHECK_KEY),
    (401, 2002): _Rule(
        "authentication failed: the key has expired or is disabled",
        "Enable the key or create a new one in the EngageLab console.",
    ),
    (403, 2002): _Rule(
        "the merchant of this account has been deleted",
        "Remove the account from the settings, or ask EngageLab to restore it.",
    ),
    (403, 2004): _Rule(
        "the key may not call this API",
        "Give the key access to the balance API in the EngageLab console.",
    ),
    (200, None): _Rule("an error instead of a balance", _CHECK_KEY),
    (401, None): _Rule("authentication failed", _CHECK_KEY),
    (403, None): _Rule(
        "access refused",
        "Check the key's permissions and its IP allow-list in the EngageLab console.",
    ),
    (404, None): _Rule("no such address", _CHECK_URL),
    (408, None): _Rule("request timeout", _LATER),
    (425, None): _Rule("too early", _LATER),
    (429, None): _Rule("too many requests", _TOO_MANY),
    (500, None): _Rule("the server failed", _LATER),
    (502, None): _Rule("bad gateway", _LATER),
    (503, None): _Rule("service unavailable", _LATER),
    (504, None): _Rule("gateway timeout", _LATER),
}
REDIRECT = _Rule("a redirect, which is never followed", _CHECK_URL)
UNEXPECTED = _Rule("an unexpected status", _CHECK_URL)
_NEVER_RETRIED = {501, 505}  # not implemented, HTTP version: neither changes by itself


def _is_retriable(status: int) -> bool:
    server_error = 500 <= status < 600 and status not in _NEVER_RETRIED  # noqa: PLR2004
    return server_error or status in {408, 425, 429}


def api_error(
    status: int,
    code: int | None = None,
    message: str | None = None,
    retry_after: float | None = None,
) -> AccountError:
    """Turn a response that is not a balance into the error to raise.

    The HTTP status and the API's code together decide; for a code that is not in the table
    the status alone does ("EngageLab SMS: Query Balance").

    Args:
        status: HTTP status.
        code: The API's `code`, if the body had one.
        message: The API's `message`, already free of secrets (`safe_text`).
        retry_after: Seconds that the server asked to wait, or None.

    Returns:
        A `RetriableError` if another attempt may help, otherwise an `AccountError`.
    """
    by_class = {3: REDIRECT, 5: RULES[500, None]}.get(status // 100, UNEXPECTED)
    others = UNEXPECTED if status in _NEVER_RETRIED else by_class
    rule = RULES.get((status, code)) or RULES.get((status, None), others)
    happened = f"HTTP {status}"
    if code is not None:
        happened += f", code {code}"
    if message:
        happened += f" ({message})"
    happened += f": {rule.meaning}"
    if not _is_retriable(status):
        return AccountError(happened, rule.next_step)
    limited = status == requests.codes.too_many
    return RetriableError(happened, rule.next_step, retry_after=retry_after, rate_limited=limited)


def safe_text(text: str, secrets: tuple[str, ...]) -> str:
    """Make foreign text fit for a log line: no secret, printable, short.

    Args:
        text: Text from the API or a library.
        secrets: What must not be shown. They are masked before the text is cut, so that no part
            of one is left at the cut. A text that holds one in disguise is not shown at all.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, _MASK)
    if any(secret in bare for bare in _unwrapped(text) for secret in secrets if secret):
        return _MASK
    text = "".join(char if char.isprintable() else " " for char in text)
    text = " ".join(text.split())
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}..."
    return text


def _unwrapped(text: str) -> Iterator[str]:
    """Take off, layer by layer, what URLs, HTML and JSON wrap around characters."""
    for unquoted in (unquote, unquote_plus):
        bare = text
        for _ in range(3):
            bare = html.unescape(unquoted(bare))
            bare = _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)), bare)
            bare = bare.replace("\\/", "/")
            yield bare


# By OpenSSL's number (X509_V_ERR_... in x509_vfy.h), since its words change with its version.
_CERTIFICATE_DATES = {9: "certificate is not yet valid", 10: "certificate has expired"}
# Looked up in this order: the first kind that is among the causes names the failure. Without a
# connection, these:
_NOT_CONNECTED: tuple[tuple[type[BaseException], str], ...] = (
    (requests.exceptions.ProxyError, "the proxy did not connect to {host}"),
    (socket.gaierror, "unknown host {host}"),
    (TimeoutError, "no connection to {host} in time"),
    (requests.ConnectTimeout, "no connection to {host} in time"),
    (ConnectionRefusedError, "{host} refused the connection"),
    (ssl.SSLError, "no TLS connection to {host}"),
    (ConnectionError, "the connection to {host} broke before the response was complete"),
    (OSError, "no connection to {host}"),
)
_NO_RESPONSE: tuple[tuple[type[BaseException], str], ...] = (
    (requests.ReadTimeout, "timed out waiting for a complete response from {host}"),
    (TimeoutError, "timed out waiting for a complete response from {host}"),
    (DecodeError, "{host} sent a response that cannot be decompressed"),
    (InvalidHeader, "{host} sent a malformed HTTP response"),
    (BaseException, "the connection to {host} broke before the response was complete"),
)
_INVALID = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,  # InvalidProxyURL is one
    requests.exceptions.MissingSchema,
)


def connection_error(
    error: Exception, host: str, secrets: tuple[str, ...], *, connected: bool
) -> AccountError:
    """Report in a few words why no response came; the libraries' own texts run over many lines.

    Args:
        error: What `requests` or urllib3 raised.
        host: Host and port of the request.
        secrets: What must not be shown.
        connected: Whether the request was sent.

    Returns:
        A `RetriableError` if another attempt may help, otherwise an `AccountError`.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = _CERTIFICATE_DATES.get(cause.verify_code, cause.verify_message)
            reason = safe_text(reason, secrets)
            return AccountError(
                f"the certificate of {host} is not trusted ({reason})",
                "If your network has a CA of its own, name its file in REQUESTS_CA_BUNDLE; "
                "otherwise check base_url.",
                unreachable=True,
            )
    if isinstance(error, _INVALID):
        if "SOCKS" in str(error):
            return AccountError(
                f"{host} is behind a SOCKS proxy, and the Python package PySocks is missing",
                "Install PySocks in the environment of the tap, or set HTTPS_PROXY and ALL_PROXY "
                "to a proxy that uses HTTP.",
            )
        return AccountError(
            f"no request can be sent to {host} ({type(error).__name__})",
            "Check base_url, and HTTPS_PROXY and ALL_PROXY in the environment.",
        )
    happened = next(
        text
        for kind, text in (_NO_RESPONSE if connected else (*_NOT_CONNECTED, *_NO_RESPONSE))
        if any(isinstance(cause, kind) for cause in causes)
    )
    return RetriableError(
        happened.format(host=host),
        _CHECK_NETWORK,
        timed_out=any(isinstance(cause, (TimeoutError, requests.Timeout)) for cause in causes),
        unreachable=not connected,
    )


def host_down(host: str) -> AccountError:
    """Make the error of an account that was skipped because nobody reaches its host.

    Args:
        host: Host and port.
    """
    return AccountError(
        f"skipped: {host} could not be reached for any of the previous accounts", _CHECK_NETWORK
    )


def rate_limited(host: str, seconds: float) -> RetriableError:
    """Make the error of an account that was not requested while its host allows no requests.

    Args:
        host: Host and port.
        seconds: How long it still allows none.
    """
    return RetriableError(
        f"{host} is rate limiting (it sent Retry-After for another account)",
        _TOO_MANY,
        retry_after=seconds,
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
