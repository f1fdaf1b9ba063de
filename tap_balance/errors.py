"""What can go wrong: one table for the API's answers, and errors that carry a line for the user."""

from __future__ import annotations

import html
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, unquote_plus

import requests
from singer_sdk.exceptions import ConfigurationError
from urllib3.exceptions import NewConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MASK = "***"
_LONGEST_MESSAGE = 100
_JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class SettingsError(ConfigurationError):
    """The settings are wrong; nothing was sent.

    Args:
        problems: One line each. A line names the setting and never shows its value.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class AccountError(Exception):
    """One account gave no balance, and trying again would not help.

    Args:
        happened: What happened, in the words of the one who reads the log.
        next_step: What the reader can do about it.
    """

    def __init__(self, happened: str, next_step: str) -> None:
        super().__init__(happened)
        self.happened = happened
        self.next_step = next_step

    def line(self, account: str) -> str:
        """Tell in one line which account failed, what happened and what to do next.

        Args:
            account: Name of the account; written with `repr`, so that it stays on one line.
        """
        return f"account {account!r}: {self.happened}. {self.next_step}"


class RetriableError(AccountError):
    """One account gave no balance this time; trying again may help.

    Args:
        happened: What happened.
        next_step: What the reader can do if it stays like that.
        retry_after: Seconds that the server asked to wait, or None.
        silent: Whether there was no answer at all, not even a bad one.
    """

    def __init__(
        self,
        happened: str,
        next_step: str,
        retry_after: float | None = None,
        *,
        silent: bool = False,
    ) -> None:
        super().__init__(happened, next_step)
        self.retry_after = retry_after
        self.silent = silent


class AccountsFailedError(Exception):
    """Some accounts gave no balance; everything that was read is on stdout already.

    Args:
        lines: One line per failed account.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class RunEndedError(BaseException):
    """The run has to end at once: a signal came, or nobody reads stdout any more.

    It is no `Exception`, so that nothing on its way takes it for the failure of one account.

    Args:
        message: What ended the run.
        exit_status: The status that the process exits with.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class _Rule(NamedTuple):
    retriable: bool
    meaning: str
    next_step: str


_LATER = "It is usually gone by the next run; if it stays, ask EngageLab support."
TOO_MANY = "Lower max_concurrency or run less often."
"""What to do when the API answers 429."""

_CHECK_KEY = (
    "Check dev_key and dev_secret of this account, and that base_url belongs to its product."
)
_CHECK_URL = "Check base_url and product of this account."

# "EngageLab SMS: Query Balance", table of errors. The same code means different things under
# different HTTP statuses (2002), so a rule needs both; (status, None) is for codes not listed.
RULES: dict[tuple[int, int | None], _Rule] = {
    (500, 1000): _Rule(retriable=True, meaning="internal error of the API", next_step=_LATER),
    (401, 2001): _Rule(
        retriable=False,
        meaning="authentication failed: wrong key or secret",
        next_step=_CHECK_KEY,
    ),
    (401, 2002): _Rule(
        retriable=False,
        meaning="authentication failed: the key has expired or is disabled",
        next_step="Enable the key or create a new one in the EngageLab console.",
    ),
    (403, 2002): _Rule(
        retriable=False,
        meaning="the merchant of this account has been deleted",
        next_step="Remove the account from the settings, or ask EngageLab to restore it.",
    ),
    (403, 2004): _Rule(
        retriable=False,
        meaning="the key may not call this API",
        next_step="Give the key access to the balance API in the EngageLab console.",
    ),
    (200, None): _Rule(
        retriable=False, meaning="an error instead of a balance", next_step=_CHECK_KEY
    ),
    (401, None): _Rule(retriable=False, meaning="authentication failed", next_step=_CHECK_KEY),
    (403, None): _Rule(
        retriable=False,
        meaning="access refused",
        next_step="Check the key's permissions and its IP allow-list in the EngageLab console.",
    ),
    (404, None): _Rule(retriable=False, meaning="no such address", next_step=_CHECK_URL),
    (429, None): _Rule(
        retriable=True,
        meaning="too many requests",
        next_step=TOO_MANY,
    ),
    (500, None): _Rule(retriable=True, meaning="the server failed", next_step=_LATER),
    (502, None): _Rule(retriable=True, meaning="bad gateway", next_step=_LATER),
    (503, None): _Rule(retriable=True, meaning="service unavailable", next_step=_LATER),
    (504, None): _Rule(retriable=True, meaning="gateway timeout", next_step=_LATER),
}
REDIRECT = _Rule(
    retriable=False, meaning="a redirect, which is never followed", next_step=_CHECK_URL
)
UNEXPECTED = _Rule(retriable=False, meaning="an unexpected status", next_step=_CHECK_URL)


def api_error(
    status: int,
    code: int | None = None,
    message: str | None = None,
    retry_after: float | None = None,
) -> AccountError:
    """Turn an answer that is not a balance into the error to raise.

    The HTTP status and the API's code together decide; for a code that is not in the table
    the status alone does ("EngageLab SMS: Query Balance").

    Args:
        status: HTTP status.
        code: The API's `code`, if the body had one.
        message: The API's `message`, already free of secrets (`safe_text`).
        retry_after: Seconds that the server asked to wait, or None.

    Returns:
        A `RetriableError` if trying again may help, else an `AccountError`.
    """
    if 300 <= status < 400:  # noqa: PLR2004
        rule = REDIRECT
    else:
        rule = RULES.get((status, code)) or RULES.get((status, None), UNEXPECTED)
    happened = f"HTTP {status}"
    if code is not None:
        happened += f", code {code}"
    if message:
        happened += f" ({message})"
    happened += f": {rule.meaning}"
    if rule.retriable:
        return RetriableError(happened, rule.next_step, retry_after)
    return AccountError(happened, rule.next_step)


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
# By OpenSSL's number (X509_V_ERR_... in x509_vfy.h), since its words change with its version.
_CERTIFICATE_DATES = {9: "certificate is not yet valid", 10: "certificate has expired"}
_CHECK_NETWORK = (
    "Check the network from this machine, base_url, and HTTPS_PROXY and NO_PROXY if there is a "
    "proxy."
)
_UNASKABLE = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,  # InvalidProxyURL is one
    requests.exceptions.MissingSchema,
)


def connection_error(
    error: Exception, host: str, secrets: tuple[str, ...], *, silent: bool
) -> AccountError:
    """Say in a few words why no answer came; the libraries' own texts run over many lines.

    Args:
        error: What `requests` or urllib3 raised.
        host: Who was asked.
        secrets: What must not be shown.
        silent: Whether not even the beginning of an answer came.

    Returns:
        A `RetriableError` if trying again may help, else an `AccountError`.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = _CERTIFICATE_DATES.get(cause.verify_code, cause.verify_message)
            reason = safe_text(reason, secrets)
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


def host_down(host: str) -> AccountError:
    """Say why an account was not asked for: its host answers nobody.

    Args:
        host: Who is not asked.
    """
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
