"""The file of accounts: a JSON array, or JSON Lines with one account each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tap_balance import strict_json
from tap_balance.errors import SettingsError
from tap_balance.validation import check_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SETTING = "accounts_file"


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
        msg = f"{_SETTING}: cannot be read ({error.strerror})"
        raise SettingsError(msg) from None
    except ValueError:  # a path with a NUL, or a file in another encoding
        msg = f"{_SETTING}: is not a file in UTF-8"
        raise SettingsError(msg) from None
    entries = list(_array(text) if text.lstrip().startswith("[") else _lines(text))
    if not entries:
        msg = f"{_SETTING}: there is no account in it"
        raise SettingsError(msg)
    check_entries(entries)
    return entries


def _array(text: str) -> Iterator[tuple[str, Any]]:
    for number, entry in enumerate(_parse(text, _SETTING), start=1):
        yield f"{_SETTING}, entry {number}: ", entry


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    # Not `splitlines`: it also splits at characters that a name may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{_SETTING}, line {number}"
            yield f"{place}: ", _parse(line, place)


def _parse(text: str, place: str) -> Any:  # noqa: ANN401
    try:
        return strict_json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        if place != _SETTING:
            where = f"column {error.colno}"
        msg = f"{place}: not JSON ({where})"
        raise SettingsError(msg) from None
    except (ValueError, RecursionError):
        msg = f"{place}: not JSON"
        raise SettingsError(msg) from None
