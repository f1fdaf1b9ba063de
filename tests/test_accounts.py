"""Accounts out of the settings: what is taken, what is refused, and which shard takes which."""

from __future__ import annotations

from typing import Any

import pendulum
import pytest

from tap_balance.accounts import Account, read_accounts, shard_of
from tap_balance.auth import basic_auth
from tap_balance.config import SETTINGS, check_settings, parse_shard
from tap_balance.errors import SettingsError

NOW = pendulum.datetime(2026, 1, 31, 10, 20)
KEYS = {"dev_key": "fake-key", "dev_secret": "fake-secret"}


def read(**config: Any) -> tuple[Account, ...]:  # noqa: ANN401
    return read_accounts(check_settings(config, SETTINGS, NOW))


def test_a_single_account_has_the_defaults() -> None:
    (account,) = read(**KEYS)
    assert account == Account(
        "default", "fake-key", "fake-secret", "sms", "https://smsapi.engagelab.com/v1/balance"
    )


def test_many_accounts_keep_their_order_and_take_what_they_lack_from_the_top() -> None:
    found = read(
        currency="EUR",
        base_url="https://proxy.example/prefix/",
        accounts=[
            {"account": "b", **KEYS},
            {"account": "a", **KEYS, "product": "otp", "base_url": "http://localhost:1"},
        ],
    )
    assert [(a.name, a.product, a.url, a.currency) for a in found] == [
        ("b", "sms", "https://proxy.example/prefix/v1/balance", "EUR"),
        ("a", "otp", "http://localhost:1/v1/balance", "EUR"),
    ]


def test_a_secret_is_not_in_the_text_form_of_an_account() -> None:
    (account,) = read(**KEYS)
    assert "fake-secret" not in repr(account)


def test_the_header_is_the_documented_one() -> None:
    account = Account("a", "jiguangdev", "dev_secret", "sms", "https://example.com/v1/balance")
    assert basic_auth(account) == "Basic amlndWFuZ2RldjpkZXZfc2VjcmV0"


def test_a_secret_is_sent_in_utf_8() -> None:
    account = Account("a", "k", "密€", "sms", "https://example.com/v1/balance")
    assert basic_auth(account) == "Basic azrlr4bigqw="


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "dev_key, dev_secret: not set"),
    ({"accounts": []}, "dev_key, dev_secret: not set"),
    ({"dev_key": "SHOW-ME-NOT"}, "dev_secret: not set"),
    ({**KEYS, "accounts": [{"account": "a", **KEYS}]}, "cannot be set together with accounts"),
    ({"account": "x", "accounts": [{"account": "a", **KEYS}]}, "account: cannot be set together"),
    ({"accounts": [{"account": "SHOW-ME-NOT", **KEYS}] * 2}, "accounts[1].account: the same name"),
    ({**KEYS, "product": "SHOW-ME-NOT"}, "product: must be one of sms, otp"),
    ({**KEYS, "base_url": "http://SHOW-ME-NOT.example"}, "base_url: must be https"),
    ({**KEYS, "base_url": "https://u:SHOW-ME-NOT@x.example"}, "base_url: must not contain a user"),
    ({**KEYS, "base_url": "https://x.example?SHOW-ME-NOT"}, "base_url: must not contain a query"),
    ({**KEYS, "base_url": "ftp://x.example/SHOW-ME-NOT"}, "base_url: is not an https URL"),
    ({**KEYS, "base_url": "https://x.example:SHOW-ME-NOT"}, "base_url: is not a valid URL"),
    ({**KEYS, "base_url": "https://x.example/\nSHOW-ME-NOT"}, "base_url: contains a space"),
    ({**KEYS, "snapshot_interval": "SHOW-ME-NOT"}, "snapshot_interval: must be an ISO 8601"),
    ({**KEYS, "currency": "SHOW-ME-NOT"}, "currency: must be three capital letters"),
    ({"dev_key": "k", "dev_secret": 98765}, "dev_secret: must be a string; put quotes"),
    ({"dev_key": "k", "dev_secret": ["SHOW-ME-NOT"]}, "dev_secret: must be a string"),
    ({"dev_key": "k", "dev_secret": "SHOW-ME-NOT\n"}, "dev_secret: has leading or trailing"),
    ({"dev_key": "k", "dev_secret": "SHOW\x00ME-NOT"}, "dev_secret: contains a control character"),
    ({"dev_key": "k", "dev_secret": ""}, "dev_secret: is empty"),
    ({"dev_key": "SHOW:ME-NOT", "dev_secret": "s"}, "dev_key: contains a colon"),
    ({**KEYS, "account": " "}, "account: is empty"),
    ({**KEYS, "account": "SHOW\x00ME-NOT"}, "account: contains a character"),
    ({**KEYS, "account": "SHOW-ME-NOT" * 50}, "account: must have at most 255 characters"),
    ({"accounts": [{"account": "a", **KEYS, "dev_secert": "SHOW-ME-NOT"}]}, "accounts[0]: unknown"),
    ({"accounts": [{"account": "a", "dev_key": "k"}]}, "accounts[0].dev_secret: not set"),
    ({"accounts": "SHOW-ME-NOT"}, "accounts: is not JSON (line 1, column 1)"),
    ({"accounts": {"account": "SHOW-ME-NOT"}}, "accounts: must be a JSON list"),
    ({"accounts": ["SHOW-ME-NOT"]}, "accounts[0]: must be a JSON object"),
    ({**KEYS, "request_timeout": "SHOW-ME-NOT"}, "request_timeout: must be a number"),
    ({**KEYS, "request_timeout": 0}, "request_timeout: must be more than 0"),
    ({**KEYS, "request_timeout": "nan"}, "request_timeout: must be a number"),
    ({**KEYS, "max_attempts": 0}, "max_attempts: must be at least 1"),
    ({**KEYS, "max_attempts": 1.5}, "max_attempts: must be a whole number"),
    ({**KEYS, "max_elapsed": True}, "max_elapsed: must be a number"),
    ({**KEYS, "shard": "SHOW-ME-NOT"}, "shard: must be i/n"),
    ({**KEYS, "accounts_file": 98765}, "accounts_file: must be a string"),
    ({**KEYS, "max_concurrency": 100_000}, "max_concurrency: must be at most 1000"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "problem"), REFUSED, ids=[row[1] for row in REFUSED])
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    config: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        read(**config)
    text = " ".join(refusal.value.problems)
    assert problem in text
    for shown in ("SHOW", "ME-NOT", "98765", "fake-secret"):
        assert shown not in text


def test_all_that_an_account_lacks_is_named() -> None:
    with pytest.raises(SettingsError) as refusal:
        read(accounts=[{"account": "a"}])
    assert refusal.value.problems == (
        "accounts[0].dev_key: not set",
        "accounts[0].dev_secret: not set",
    )


def test_a_whole_number_may_be_written_with_a_point() -> None:
    checked = check_settings({**KEYS, "max_concurrency": 4.0}, SETTINGS, NOW)
    assert repr(checked["max_concurrency"]) == "4"


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="shard: must be i/n"):
        parse_shard({"shard": text})


def sharded(names: list[str], shard: str | None) -> list[str]:
    listed = [{"account": name, "dev_key": "k", "dev_secret": "s"} for name in names]
    config = {"accounts": listed} | ({"shard": shard} if shard else {})
    return [account.name for account in read_accounts(config)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shards_are_disjoint_and_complete_and_keep_the_order(count: int) -> None:
    names = [f"客户-{number}" for number in range(500)]
    slices = [sharded(names, f"{index}/{count}") for index in range(1, count + 1)]
    assert sorted(name for part in slices for name in part) == sorted(names)
    for part in slices:
        assert part == [name for name in names if name in set(part)]
        assert len(part) > 500 / count / 2


def test_an_account_keeps_its_shard_on_every_machine_and_whatever_is_added() -> None:
    before = sharded(["main", "shop", "eu"], "1/3")
    assert [
        name for name in sharded(["new", "main", "shop", "eu"], "1/3") if name != "new"
    ] == before
    # Stated, because a rule that changes would move accounts between two tasks of one run.
    assert [shard_of(name, 3) for name in ("main", "shop", "eu", "主账户")] == [1, 2, 1, 1]


def test_an_account_outside_the_shard_is_checked_all_the_same() -> None:
    with pytest.raises(SettingsError, match="names must differ"):
        sharded(["main", "main"], "1/99")
