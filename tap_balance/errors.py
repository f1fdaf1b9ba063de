"""What can go wrong: one table for the API's responses, and errors that carry a line to log."""

from __future__ import annotations

import html
import re
import socket
import ssl
import traceback
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote, unquote_plus

import requests
import urllib3
from singer_sdk.exceptions import ConfigurationError
from urllib3.exceptions import DecodeError, InvalidHeader, ProxyError

MAX_PROBLEMS = 10
"""Lines about invalid settings that are shown at most."""

_LONGEST_MESSAGE = 100
_JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class SettingsError(ConfigurationError):
    """The settings are invalid; no requests were sent.

    Args:
        problems: One line each. A line names the setting and never shows its value. Repeated ones
            and those beyond `MAX_PROBLEMS` are left out.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(dict.fromkeys(problems))[:MAX_PROBLEMS]
        super().__init__("; ".join(self.problems))


@dataclass(eq=False)
class AccountError(Exception):
    """One account gave no balance, and another attempt would not help.

    Attributes:
        happened: What happened, in the words of the one who reads the log.
        next_step: What the reader can do about it.
        unreachable: Whether no connection to the host could be made.
        timed_out: Whether the attempt took all its time.
        retry_after: Seconds that the server asked to wait, or None.
        rate_limited: Whether that holds for all accounts of the host.
    """

    happened: str
    next_step: str
    _: KW_ONLY
    unreachable: bool = False
    timed_out: bool = False
    retry_after: float | None = None
    rate_limited: bool = False

    def __str__(self) -> str:
        """Return what happened and what to do next."""
        return f"{self.happened}. {self.next_step}"

    def line(self, account: str) -> str:
        """Report in one line which account failed, what happened and what to do next."""
        # `repr` keeps a name on one line, whatever characters it has.
        return f"account {account!r}: {self}"


class RetriableError(AccountError):
    """One account gave no balance this time; another attempt may help."""


class AccountsFailedError(Exception):
    """Some accounts gave no balance, as was logged; everything else has been written to stdout."""


class RunEndedError(BaseException):
    """The run has to end at once: a signal came, or nobody reads stdout any more.

    It is not an `Exception`, so that nothing on its way takes it for the failure of one account.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


_LATER = "This usually resolves by the next run; if it persists, contact EngageLab support."
TOO_MANY = "Lower max_concurrency or run less often."
_CHECK_KEY = (
    "Check dev_key and dev_secret of this account, and that base_url belongs to its product."
)
_CHECK_URL = "Check base_url and product of this account."
CHECK_NETWORK = (
    "Check the network from this machine, base_url, and HTTPS_PROXY and NO_PROXY if there is a "
    "proxy."
)

# What a status and the API's code mean, and what to do next.
_UNEXPECTED = ("an unexpected status", _CHECK_URL)

# "EngageLab SMS: Query Balance", table of errors. The same code means different things under
# different HTTP statuses (2002), so a rule needs both; (status, None) is for codes not listed, and
# the first digit alone for statuses not listed.
_RULES: dict[tuple[int, int | None], tuple[str, str]] = {
    (3, None): ("a redirect, which is never followed", _CHECK_URL),
    (5, None): ("the server failed", _LATER),
    (500, 1000): ("internal error of the API", _LATER),
    (401, 2001): ("authentication failed: wrong key or secret", _CHECK_KEY),
    (401, 2002): (
        "authentication failed: the key has expired or is disabled",
        "Enable the key or create a new one in the EngageLab console.",
    ),
    (403, 2002): (
        "the merchant of this account has been deleted",
        "Remove the account from the settings, or ask EngageLab to restore it.",
    ),
    (403, 2004): (
        "the key may not call this API",
        "Give the key access to the balance API in the EngageLab console.",
    ),
    (200, None): ("an error instead of a balance", _CHECK_KEY),
    (401, None): ("authentication failed", _CHECK_KEY),
    (403, None): (
        "access refused",
        "Check the key's permissions and its IP allow-list in the EngageLab console.",
    ),
    (404, None): ("no such address", _CHECK_URL),
    (408, None): ("request timeout", _LATER),
    (425, None): ("too early", _LATER),
    (429, None): ("too many requests", TOO_MANY),
    (501, None): _UNEXPECTED,  # like 505, it does not change by itself
    (502, None): ("bad gateway", _LATER),
    (503, None): ("service unavailable", _LATER),
    (504, None): ("gateway timeout", _LATER),
    (505, None): _UNEXPECTED,
}


def api_error(
    status: int, code: int | None, message: str | None, retry_after: float | None = None
) -> AccountError:
    """Turn a response that is not a balance into the error to raise.

    The HTTP status and the API's code together decide; for a code that is not in the table
    the status alone does ("EngageLab SMS: Query Balance"). The message is free of secrets already
    (`safe_text`); `retry_after` is the seconds that the server asked to wait.
    """
    keys = (status, code), (status, None), (status // 100, None)
    meaning, next_step = next((_RULES[key] for key in keys if key in _RULES), _UNEXPECTED)
    details = ("" if code is None else f", code {code}") + (f" ({message})" if message else "")
    happened = f"HTTP {status}{details}: {meaning}"
    if next_step not in {_LATER, TOO_MANY}:  # another attempt would not help
        return AccountError(happened, next_step)
    limited = status == requests.codes.too_many
    return RetriableError(happened, next_step, retry_after=retry_after, rate_limited=limited)


def defect(error: Exception) -> AccountError:
    """Make the error of a defect of the tap; its text is left out, since it may hold a secret."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return AccountError(
        f"the tap failed with {type(error).__name__} at line {frame.lineno} of {frame.filename}",
        "This is a defect; please report this line.",
    )


def safe_text(text: str, secrets: tuple[str, ...]) -> str:
    """Make foreign text fit for a log line: printable, short, and "***" if a secret is in it."""
    if any(secret in bare for bare in (text, *_unwrapped(text)) for secret in secrets if secret):
        return "***"
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _unwrapped(text: str) -> Iterator[str]:
    """Take off, layer by layer, what URLs, HTML and JSON wrap around characters."""
    for unquoted in (unquote, unquote_plus):
        bare = text
        for _ in range(3):
            bare = html.unescape(unquoted(bare))
            bare = _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)), bare)
            bare = bare.replace("\\/", "/")
            yield bare
            # JSON's other escapes; what \\u has made of a letter in two halves becomes one.
            bare = re.sub(r"\\(.)", r"\1", bare)
            bare = bare.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            yield bare


# By OpenSSL's number (X509_V_ERR_... in x509_vfy.h), since its words change with its version.
_CERTIFICATE_DATES = {9: "certificate is not yet valid", 10: "certificate has expired"}
_Kind: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
_TIMEOUT: _Kind = (TimeoutError, urllib3.exceptions.TimeoutError)
# Looked up in this order: the first kind that is among the causes names the failure. Without a
# connection, these:
_NOT_CONNECTED: tuple[tuple[_Kind, str], ...] = (
    (ProxyError, "the proxy did not connect to {host}"),
    (socket.gaierror, "unknown host {host}"),
    (_TIMEOUT, "no connection to {host} in time"),
    (ConnectionRefusedError, "{host} refused the connection"),
    (ssl.SSLError, "no TLS connection to {host}"),
    (ConnectionError, "the connection to {host} broke before the response was complete"),
    (OSError, "no connection to {host}"),
)
_NO_RESPONSE: tuple[tuple[_Kind, str], ...] = (
    (_TIMEOUT, "timed out waiting for a complete response from {host}"),
    (DecodeError, "{host} sent a response that cannot be decompressed"),
    (InvalidHeader, "{host} sent a malformed HTTP response"),
    (BaseException, "the connection to {host} broke before the response was complete"),
)


def connection_error(
    error: Exception, host: str, secrets: tuple[str, ...], *, connected: bool
) -> AccountError:
    """Turn what a library raised into the error to raise; its own text runs over many lines.

    `secrets` are not shown; `connected` is whether the request was sent.
    """
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = _CERTIFICATE_DATES.get(cause.verify_code, cause.verify_message)
            return AccountError(
                f"the certificate of {host} is not trusted ({safe_text(reason, secrets)})",
                "If your network has a CA of its own, name its file in REQUESTS_CA_BUNDLE; "
                "otherwise check base_url.",
                unreachable=True,
            )
    if not connected and isinstance(error, ValueError):
        # An address that cannot be used: LocationValueError, InvalidProxyURL, InvalidSchema, ...
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
        CHECK_NETWORK,
        timed_out=any(isinstance(cause, _TIMEOUT) for cause in causes),
        unreachable=not connected,
    )


def _causes(error: Exception) -> list[BaseException]:
    """Walk from an error down to what the operating system reported."""
    causes: list[BaseException] = []
    found: list[Any] = [error]
    for item in found:  # the list grows meanwhile
        if isinstance(item, BaseException) and item not in causes:
            causes.append(item)
            found += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    return causes
