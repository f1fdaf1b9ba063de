"""An account: one set of credentials, read and checked from the settings."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from tap_balance import strict_json
from tap_balance.config import LONGEST_NAME, MOST_PROBLEMS, check_entries, parse_shard
from tap_balance.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tap_balance.config import Product

# "EngageLab SMS: Query Balance" and "EngageLab OTP: Query Balance", request address.
BASE_URLS: dict[Product, str] = {
    "sms": "https://smsapi.engagelab.com",
    "otp": "https://otp.api.engagelab.cc",
}
ENDPOINT = "/v1/balance"
_FILE = "accounts_file"


@dataclass(frozen=True, slots=True)
class Account:
    """One set of credentials and where to use it.

    Attributes:
        name: What the records of this account carry as `account`.
        dev_key: User name of HTTP Basic.
        dev_secret: Password of HTTP Basic.
        product: Which body to expect.
        url: Where to ask, e.g. "https://smsapi.engagelab.com/v1/balance".
        currency: ISO 4217 code for a body that has none, or None.
    """

    name: str
    dev_key: str = field(repr=False)
    dev_secret: str = field(repr=False)
    product: Product
    url: str
    currency: str | None = None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or its literal address (no look-up is made)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shard_of(name: str, count: int) -> int:
    """Find the shard of an account, from 1 to `count`; nothing but its name decides."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def read_accounts(
    config: Mapping[str, Any], from_file: Sequence[tuple[str, Mapping[str, Any]]] = ()
) -> tuple[Account, ...]:
    """Read the accounts of a run, in the settings' order.

    Args:
        config: Settings whose types are right (`tap_balance.validation.check_types`).
        from_file: The accounts that `accounts_file` names, each with the prefix to name it.

    Raises:
        SettingsError: There is no account, or two ways to give them are mixed, or something is
            wrong with one. Every problem is listed, none with its value.
    """
    accounts: list[Account] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    for place, settings in _entries(config, from_file):
        try:
            account = _read_account(place, {**_shared(config), **settings})
        except SettingsError as error:
            problems += error.problems
            continue
        if account.name in places:
            problems.append(
                f"{place}account: the same name as in {places[account.name].rstrip('.: ')}; "
                "names must differ"
            )
        places.setdefault(account.name, place)
        accounts.append(account)
    if problems:
        raise SettingsError(*list(dict.fromkeys(problems))[:MOST_PROBLEMS])
    if "shard" in config:
        index, count = parse_shard(config["shard"])
        return tuple(a for a in accounts if shard_of(a.name, count) == index)
    return tuple(accounts)


def _entries(
    config: Mapping[str, Any], from_file: Sequence[tuple[str, Mapping[str, Any]]]
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """List the accounts' own settings, each with the prefix under which to name them."""
    single = {name: config.get(name) for name in ("dev_key", "dev_secret", "account")}
    given = [name for name, value in single.items() if value is not None]
    # Empty lists come from tools that fill in every setting.
    many = [name for name in ("accounts", "accounts_file") if config.get(name)]
    if many and (given or len(many) > 1):
        msg = f"{', '.join([*given, *many[1:]])}: cannot be set together with {many[0]}; use one"
        raise SettingsError(msg)
    if many:
        listed = (
            (f"accounts[{i}].", entry) for i, entry in enumerate(config.get("accounts") or ())
        )
        return (
            (place, {name: value for name, value in entry.items() if value is not None})
            for place, entry in (from_file or listed)
        )
    missing = [name for name in ("dev_key", "dev_secret") if single[name] is None]
    if missing:
        msg = (
            f"{', '.join(missing)}: not set; set dev_key and dev_secret, or accounts, or "
            "accounts_file"
        )
        raise SettingsError(msg)
    return [("", {name: single[name] for name in given})]


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the settings that an account takes from the top level unless it has its own."""
    return {"account": "default"} | {
        name: config[name]
        for name in ("product", "base_url", "currency")
        if config.get(name) is not None
    }


def _read_account(place: str, settings: Mapping[str, Any]) -> Account:
    name, dev_key, dev_secret = (settings[field] for field in ("account", "dev_key", "dev_secret"))
    product: Product = settings.get("product", "sms")
    base_url = settings.get("base_url", BASE_URLS[product])
    url_problem = _base_url_problem(base_url)
    found = {
        "account": _name_problem(name),
        "dev_key": _credential_problem(dev_key)
        or ("contains a colon, which HTTP Basic cannot carry" if ":" in dev_key else None),
        "dev_secret": _credential_problem(dev_secret),
        "base_url": url_problem,
    }
    problems = [f"{place}{field}: {problem}" for field, problem in found.items() if problem]
    if problems:
        raise SettingsError(*problems)
    return Account(
        name, dev_key, dev_secret, product, balance_url(base_url), settings.get("currency")
    )


def balance_url(base_url: str) -> str:
    """Put the endpoint behind a base URL, whose path prefix is kept."""
    return base_url.rstrip("/") + ENDPOINT


def _name_problem(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters"
    if "\0" in name or not _is_unicode(name):
        return "contains a character that no database can store"
    return None


def _credential_problem(value: str) -> str | None:
    if not value:
        return "is empty"
    if value != value.strip():
        return "begins or ends with white space (the newline at a file's end, perhaps); remove it"
    # RFC 7617, section 2: neither part may hold a control character.
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):  # noqa: PLR2004
        return "contains a control character"
    if not _is_unicode(value):
        return "is not valid Unicode"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache
def _base_url_problem(base_url: str) -> str | None:
    # `urlsplit` drops tabs and newlines without a word, and a backslash is a slash to some.
    if any(char <= " " or char in "\x7f\\" for char in base_url):
        return "contains a space, a control character or a backslash"
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")  # as the look-up will; it refuses an empty or overlong label
        requests.Request("GET", balance_url(base_url)).prepare()
    except ValueError:  # every error of `requests` about a URL is one too
        return "is not a URL that can be asked"
    problems = {
        "must not contain a user or password; use dev_key and dev_secret": "@" in parts.netloc,
        "is not an https URL with a host": not host or parts.scheme not in {"http", "https"},
        "must be https (http only to this machine, such as http://127.0.0.1:8642)": (
            parts.scheme == "http" and not is_loopback(host)
        ),
        "must not contain a query or a fragment": "?" in base_url or "#" in base_url,
    }
    return next((problem for problem, found in problems.items() if found), None)


def read_accounts_file(path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Read the accounts' own settings from a file.

    Args:
        path: The file: UTF-8, with or without a byte order mark.

    Returns:
        The settings of each account, with the prefix under which to name them: the line that it
        is on, or its place in the array.

    Raises:
        SettingsError: The file cannot be read, or something in it is wrong. A line is named by
            its number and never shown.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        msg = f"{_FILE}: cannot be read ({error.strerror})"
        raise SettingsError(msg) from None
    except ValueError:  # a path with a NUL, or a file in another encoding
        msg = f"{_FILE}: is not a file in UTF-8"
        raise SettingsError(msg) from None
    entries = list(_array(text) if text.lstrip().startswith("[") else _lines(text))
    if not entries:
        msg = f"{_FILE}: there is no account in it"
        raise SettingsError(msg)
    check_entries(entries)
    return entries


def _array(text: str) -> Iterator[tuple[str, Any]]:
    for number, entry in enumerate(_parse(text, _FILE), start=1):
        yield f"{_FILE}, entry {number}: ", entry


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    # Not `splitlines`: it also splits at characters that a name may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{_FILE}, line {number}"
            yield f"{place}: ", _parse(line, place)


def _parse(text: str, place: str) -> Any:  # noqa: ANN401
    try:
        return strict_json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        if place != _FILE:
            where = f"column {error.colno}"
        msg = f"{place}: not JSON ({where})"
        raise SettingsError(msg) from None
    except (ValueError, RecursionError):
        msg = f"{place}: not JSON"
        raise SettingsError(msg) from None
