"""The file of accounts: both forms, and what is wrong in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tap_balance.accounts import Account, read_accounts, read_accounts_file
from tap_balance.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

MAIN = {"account": "main", "dev_key": "k1", "dev_secret": "fake-secret"}
SHOP = {"account": "shop", "dev_key": "k2", "dev_secret": "s", "product": "otp", "currency": None}
LINE = json.dumps(MAIN)


def read(path: Path, content: bytes) -> tuple[Account, ...]:
    path.write_bytes(content)
    config = {"accounts_file": str(path), "currency": "USD"}
    return read_accounts(config)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([MAIN, SHOP]).encode(),
        json.dumps([MAIN, SHOP], indent=2).encode(),
        f"{LINE}\n{json.dumps(SHOP)}\n".encode(),
        f"\ufeff{LINE}\r\n\r\n  {json.dumps(SHOP)}".encode(),
    ],
    ids=["array", "array of several lines", "JSON Lines", "Windows"],
)
def test_both_forms_give_the_same_accounts(tmp_path: Path, content: bytes) -> None:
    main, shop = read(tmp_path / "accounts", content)
    url = "https://smsapi.engagelab.com/v1/balance"
    assert main == Account("main", "k1", "fake-secret", "sms", url, "USD")
    assert shop == Account(
        "shop", "k2", "s", "otp", "https://otp.api.engagelab.cc/v1/balance", "USD"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "accounts_file: there is no account in it"),
        (b"[]", "accounts_file: there is no account in it"),
        (b"\xff\xfe", "accounts_file: is not a file in UTF-8"),
        (b'[{"account": SHOW-ME-NOT}]', "accounts_file: is not JSON (line 1, column 14)"),
        (
            f"{LINE}\n\nSHOW-ME-NOT".encode(),
            "accounts_file, line 3: is not JSON (line 3, column 1)",
        ),
        (f"{LINE}\n[{LINE}]".encode(), "accounts_file, line 2: must be a JSON object"),
        (f"{LINE}\n{{}}".encode(), "accounts_file, line 2: account, dev_key: not set"),
        (f"{LINE}\n{LINE}".encode(), "line 2: account: the same name as in accounts_file, line 1"),
        (
            f'{LINE[:-1]}, "secret": "SHOW-ME-NOT"}}'.encode(),
            "accounts_file, line 1: unknown key 'secret'",
        ),
        (
            json.dumps([MAIN, SHOP | {"dev_secret": 5}]).encode(),
            "accounts_file, entry 2: dev_secret: must be a string; put quotes around it",
        ),
        (
            json.dumps([MAIN, SHOP | {"dev_secret": "SHOW-ME-NOT\n"}]).encode(),
            "accounts_file, entry 2: dev_secret: has leading or trailing whitespace",
        ),
        (b"[" * 100_000, "accounts_file: is not JSON"),
        (b'{"account": NaN}', "accounts_file, line 1: is not JSON (NaN)"),
    ],
)
def test_what_is_wrong_is_named_by_its_place_and_not_shown(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        read(tmp_path / "accounts", content)
    text = "\n".join(refusal.value.problems)
    assert problem in text
    assert "SHOW-ME-NOT" not in text
    assert "fake-secret" not in text


@pytest.mark.parametrize("path", ["nowhere/accounts.json", "."])
def test_a_file_that_cannot_be_read_is_an_error_of_the_setting(path: str) -> None:
    with pytest.raises(SettingsError, match="accounts_file: cannot be read"):
        read_accounts_file(path)


def test_ten_thousand_wrong_lines_are_ten_lines_of_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        read(tmp_path / "accounts", b"{}\n" * 10_000)
    assert len(refusal.value.problems) == 10


@pytest.mark.parametrize("other", [{"accounts": [MAIN]}, {"dev_key": "k"}, {"account": "main"}])
def test_accounts_come_from_one_place_only(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "accounts"
    path.write_text(LINE)
    config = {"accounts_file": str(path), **other}
    with pytest.raises(SettingsError, match="cannot be set together"):
        read_accounts(config)
