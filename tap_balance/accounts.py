"""An account: one set of credentials, from the list in the settings or from a file."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from urllib3.util import parse_url

from tap_balance.config import (
    Product,
    account_problems,
    parse_json,
    parse_shard,
    read_text,
    variable_of,
)
from tap_balance.errors import SettingsError

# "EngageLab SMS: Query Balance" and "EngageLab OTP: Query Balance", request address.
BASE_URLS: dict[Product, str] = {
    "sms": "https://smsapi.engagelab.com",
    "otp": "https://otp.api.engagelab.cc",
}
ENDPOINT = "/v1/balance"
_FILE = "accounts_file"
_SECRET_FORMS = ("dev_secret", "dev_secret_env", "dev_secret_file")  # as text, or by reference

# What must not be found in a setting: the problem, and its pattern.
_IN_SECRETS = {
    "is empty": r"^\Z",
    "has leading or trailing whitespace (possibly a newline from a file); remove it": r"^\s|\s\Z",
    "contains a control character": r"[\0-\x1f\x7f]",  # RFC 7617, section 2
    "is not valid Unicode": r"[\ud800-\udfff]",
}
_PROBLEMS = {
    "account": {
        "is empty": r"^\s*\Z",
        "contains a character that no database can store": r"[\0\ud800-\udfff]",
    },
    "dev_key": _IN_SECRETS | {"contains a colon, which HTTP Basic cannot carry": ":"},
}
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Account:
    """One set of credentials and where to use it.

    Attributes:
        name: What the records of this account carry as `account`.
        dev_key: User name of HTTP Basic.
        dev_secret: Password of HTTP Basic.
        product: Which body to expect.
        url: Address of its balance, e.g. "https://smsapi.engagelab.com/v1/balance".
        currency: ISO 4217 code for a body that has none, or None.
        enabled: Whether a request is sent for it.
    """

    name: str
    dev_key: str = field(repr=False)
    dev_secret: str = field(repr=False)
    product: Product
    url: str
    currency: str | None = None
    enabled: bool = True

    @property
    def host(self) -> str:
        """Host and port of the address, as users are shown them."""
        return urlsplit(self.url).netloc


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or its literal address (no look-up is made)."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shard_of(name: str, count: int) -> int:
    """Find the shard of an account, from 1 to `count`; it depends on its name only."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def read_accounts(settings: Mapping[str, Any]) -> tuple[Account, ...]:
    """Read the accounts of a run out of checked settings, those that are not enabled included.

    Raises:
        SettingsError: There is no account, or two ways to give them are mixed, or something is
            wrong with one. Every problem is listed, none with its value.
    """
    shared_names = ("product", "base_url", "currency")
    shared = {name: settings[name] for name in shared_names if name in settings}
    accounts: list[Account] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    for place, entry in _entries(settings):
        try:
            account = _read_account(entry, shared)
        except SettingsError as error:
            problems += [_at(place, problem) for problem in error.problems]
            continue
        first = places.setdefault(account.name, place)
        if first != place:
            problem = f"account: the same name as in {first.removesuffix(': ')}; names must differ"
            problems.append(_at(place, problem))
        accounts.append(account)
    if problems:
        raise SettingsError(*problems)
    index, count = parse_shard(settings)
    return tuple(account for account in accounts if shard_of(account.name, count) == index)


def _entries(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the accounts' own settings, each with the place to name in an error."""
    single = ("dev_key", "dev_secret", "account")
    # Empty lists and texts come from tools that fill in every setting.
    way, *others = [name for name in ("accounts", _FILE, *single) if settings.get(name)] or [""]
    if way in {"accounts", _FILE}:
        if others:
            raise SettingsError(f"{', '.join(others)}: cannot be set together with {way}; use one")
        if way == _FILE:
            return read_accounts_file(settings[way])
        return [(f"accounts[{i}]", entry) for i, entry in enumerate(settings[way])]
    unset = [name for name in ("dev_key", "dev_secret") if name not in settings]
    if unset:
        ways = "set dev_key and dev_secret, or accounts, or accounts_file"
        msg = f"{', '.join(unset)}: not set; {ways}"
        unread = [
            variable_of(name)
            for name in ("accounts", _FILE, *unset)
            if name not in settings and os.environ.get(variable_of(name), "") not in {"", "null"}
        ]
        if unread:
            msg += f"; {', '.join(unread)} in the environment: only read with --config=ENV"
        raise SettingsError(msg)
    given = {name: settings[name] for name in single if name in settings}
    return [("", {"account": "default", **given})]


def _at(place: str, problem: str) -> str:
    """Name the place of a problem: accounts[0].dev_key: ..., but accounts[0]: unknown key ..."""
    named = problem.partition(":")[0].replace(", ", "").isidentifier()
    return f"{place}{'.' if named else ': '}{problem}" if place.endswith("]") else place + problem


def _read_account(entry: Any, shared: Mapping[str, Any]) -> Account:  # noqa: ANN401
    if not isinstance(entry, dict):
        raise SettingsError("must be a JSON object")
    own = {name: value for name, value in entry.items() if value is not None}
    problems = account_problems(own)
    forms = [name for name in _SECRET_FORMS if name in own]
    if len(forms) != 1:  # not in the schema: as a `oneOf`, it costs as much as all else there
        problem = "only one of them can be set" if forms else "not set"
        problems.append(f"{', '.join(forms or ['dev_secret'])}: {problem}")
    if problems:
        raise SettingsError(*problems)
    (form,) = forms
    settings = {"product": "sms", **shared, **own}
    settings.setdefault("base_url", BASE_URLS[settings["product"]])
    texts: dict[str, str] = {}
    for name in ("account", "dev_key", form, "base_url"):
        try:
            texts[name] = _resolved(name, settings[name])
        except ValueError as error:  # noqa: PERF203 - each is named
            problems.append(f"{name}: {error}")
    if problems:
        raise SettingsError(*problems)
    return Account(
        name=texts["account"],
        dev_key=texts["dev_key"],
        dev_secret=texts[form],
        product=settings["product"],
        url=texts["base_url"],
        currency=settings.get("currency"),
        enabled=settings.get("enabled", True),
    )


def _resolved(name: str, text: str) -> str:
    """Return what the text of a setting stands for, or raise a ValueError with what is wrong."""
    if name == "base_url":
        return _balance_url(text)
    if name == "dev_secret_file":
        text = read_text(text)
    elif name == "dev_secret_env":
        # The name is not shown: it may be the secret itself in the wrong place.
        secret = os.environ.get(text) if text.isprintable() else None
        if secret is None:
            raise ValueError("the environment variable of this name is not set")
        text = secret
    return _checked(text, _PROBLEMS.get(name, _IN_SECRETS))


def _checked(text: str, problems: Mapping[str, str]) -> str:
    """Return the text, or raise a ValueError with the first problem that is found in it."""
    for problem, pattern in problems.items():
        if re.search(pattern, text):
            raise ValueError(problem)
    return text


@lru_cache
def _balance_url(base_url: str) -> str:
    """Make the address of the balance; all spellings of one base URL give the same.

    Scheme and host are in lower case and the scheme's own port is left out, so that what is looked
    up by the address (adapter, proxy, connections) is found. A path prefix is kept.
    """
    # A backslash is a slash to some.
    refused = {
        "contains a space, a control character or a backslash": r"[\0- \x7f\\]",
        "must not contain a user or password; use dev_key and dev_secret": r"^[^/?#]*//[^/?#]*@",
    }
    _checked(base_url, refused)
    try:
        url = parse_url(base_url)
        host = (url.host or "").strip("[]")
        host.encode("idna")  # as the look-up will; it refuses an empty or overlong label
    except ValueError:
        raise ValueError("is not a valid URL") from None
    plain = url.scheme == "http" and not is_loopback(host)
    for problem, found in (
        ("is not an https URL with a host", not host or url.scheme not in _DEFAULT_PORTS),
        ("must be https (http only to this machine, such as http://127.0.0.1:8642)", plain),
        ("must not contain a query or a fragment", "?" in base_url or "#" in base_url),
    ):
        if found:
            raise ValueError(problem)
    port = None if url.port == _DEFAULT_PORTS[str(url.scheme)] else url.port
    return url._replace(port=port, path=(url.path or "").rstrip("/") + ENDPOINT).url


def read_accounts_file(path: str) -> list[tuple[str, Any]]:
    """Read the accounts' own settings from a file: a JSON array, or JSON Lines.

    Each comes with the prefix under which to name it: its line, or its place in the array.

    Raises:
        SettingsError: The file cannot be read or has no account. A line that is not JSON is named
            by its number and not shown.
    """
    place = f"{_FILE}: "
    entries: list[tuple[str, Any]] = []
    try:
        text = read_text(path)
        if text.lstrip().startswith("["):
            listed = enumerate(parse_json(text), start=1)
            entries = [(f"{_FILE}, entry {number}: ", entry) for number, entry in listed]
        else:
            # Not `splitlines`: it also splits at characters that a name may hold.
            for number, line in enumerate(text.split("\n"), start=1):
                place = f"{_FILE}, line {number}: "
                if line.strip():
                    entries.append((place, parse_json(line, first_line=number)))
    except ValueError as error:
        raise SettingsError(f"{place}{error}") from None
    if not entries:
        raise SettingsError(f"{_FILE}: there is no account in it")
    return entries
