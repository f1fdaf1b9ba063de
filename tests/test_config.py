"""The settings as they are read: files, the environment, references; what is wrong is named."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pendulum
import pytest

from tap_balance.accounts import read_accounts
from tap_balance.config import (
    LARGEST_FILE,
    check_settings,
    read_environment,
    read_files,
    unknown_settings,
)
from tap_balance.errors import SettingsError
from tap_balance.tap import TapBalance

if TYPE_CHECKING:
    from pathlib import Path

    from tap_balance.accounts import Account

NOW = pendulum.datetime(2026, 1, 31, 10, 20)
SCHEMA = TapBalance.config_jsonschema
KEYS = {"dev_key": "fake-key", "dev_secret": "fake-secret"}


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("TAP_BALANCE_")]:
        monkeypatch.delenv(variable)


def read(*sources: str) -> dict[str, Any]:
    variables = read_environment(SCHEMA) if "ENV" in sources else {}
    return check_settings(read_files(sources) | variables, SCHEMA, NOW)


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(f"TAP_BALANCE_{name.upper()}", text)


NEEDED = {"dev_key", "dev_secret"}


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, **KEYS)
    without = read("ENV")
    set_variables(monkeypatch, **dict.fromkeys(SCHEMA["properties"].keys() - NEEDED, ""))
    assert read("ENV") == without
    (account,) = read_accounts(read("ENV"))
    assert account.name == "default"


def test_null_in_a_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, **KEYS)
    without = read("ENV")
    set_variables(monkeypatch, accounts="null", stream_maps="null")
    assert read("ENV") == without


def test_an_empty_key_does_not_get_in_the_way_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.dumps([{"account": "shop", **KEYS}])
    set_variables(monkeypatch, dev_key="", dev_secret="", accounts=listed)
    assert [account.name for account in read_accounts(read("ENV"))] == ["shop"]


@pytest.mark.parametrize("name", ["dev_key", "dev_secret"])
def test_a_key_or_secret_that_is_needed_is_empty(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_variables(monkeypatch, **KEYS | {name: ""})
    with pytest.raises(SettingsError, match=f"^{name}: is empty$"):
        read_accounts(read("ENV"))


ODD_NUMBERS = ("1_0", "inf", "nan", "٣", "0x10")  # Python's own `float` takes most of them


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("max_attempts", "abc", "must be a whole number"),
        ("max_attempts", "1_0", "must be a whole number"),
        ("max_attempts", "٣", "must be a whole number"),
        ("max_attempts", "2.5", "must be a whole number"),
        *[("max_elapsed", text, "must be a number") for text in ODD_NUMBERS],
        ("max_elapsed", "1e400", "must be at most 86400"),
        ("flattening_enabled", "maybe", "must be true or false"),
        ("accounts", " ", "is not JSON"),
        ("accounts", "[NaN]", "is not JSON"),
        ("accounts", "[" * 100_000, "is not JSON"),
        ("accounts", '[{"dev_key": "x", "dev_key": "y"}]', "has the key 'dev_key' twice in one"),
        ("stream_maps", "{'x': 1}", "is not JSON"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, problem: str
) -> None:
    set_variables(monkeypatch, **KEYS | {variable: text})
    with pytest.raises(SettingsError, match=f"^{variable}: {problem}"):
        read("ENV")


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("max_attempts", " 3 ", 3),
        ("request_timeout", "2.5", 2.5),
        ("request_timeout", "1e1", 10.0),
        ("flattening_enabled", "True", True),
        ("flattening_enabled", "off", False),
        ("dev_secret", "123456", "123456"),
    ],
)
def test_text_from_a_variable_has_its_settings_type(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: object
) -> None:
    set_variables(monkeypatch, **KEYS | {variable: text})
    assert read("ENV")[variable] == value


def test_the_last_file_wins_and_the_environment_over_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps(KEYS | {"account": "first", "currency": "EUR", "shard": "1/1"}))
    second.write_text('\ufeff{\r\n"account": "second", "currency": "JPY"\r\n}', encoding="utf-8")
    set_variables(monkeypatch, currency="USD", product="", shard="")
    settings = read("ENV", str(first), str(second))
    assert (settings["account"], settings["currency"]) == ("second", "USD")
    assert (settings["shard"], settings["product"]) == ("1/1", "sms")


def test_a_config_with_one_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"dev_secret": "SHOW-ME-NOT", "dev_secret": "ME-NEITHER"}')
    with pytest.raises(SettingsError, match="has the key 'dev_secret' twice") as refusal:
        read(str(path))
    assert "NOT" not in str(refusal.value)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(SettingsError, match=f"larger than {LARGEST_FILE // 1024**2} MiB"):
        read("/dev/zero")


def test_letters_that_look_alike_are_distinguished() -> None:
    cyrillic = {"dev_s\u0435cret": "x"}
    assert unknown_settings(cyrillic, SCHEMA) == [
        "unknown setting 'dev_s\\u0435cret' ignored; did you mean 'dev_secret'?"
    ]
    with pytest.raises(SettingsError, match=r"unknown key 'dev_s\\u0435cret'.*did you mean"):
        read_accounts({"accounts": [{"account": "a", **KEYS, **cyrillic}]})


FORGOTTEN = {
    "dev_key": "TAP_BALANCE_DEV_KEY",
    "dev_secret": "TAP_BALANCE_DEV_SECRET",
    "accounts": "TAP_BALANCE_ACCOUNTS",
    "accounts_file": "TAP_BALANCE_ACCOUNTS_FILE",
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_where_config_env_is_missing_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_variables(monkeypatch, **{name: "SHOW-ME-NOT"})
    with pytest.raises(SettingsError, match=r"not set; .*--config=ENV") as refusal:
        read_accounts(read())
    assert FORGOTTEN[name] in str(refusal.value)
    assert "SHOW-ME-NOT" not in str(refusal.value)
    monkeypatch.delenv(FORGOTTEN[name])
    with pytest.raises(SettingsError) as refusal:
        read_accounts(read())
    assert "--config=ENV" not in str(refusal.value)


# --- secrets by reference -----------------------------------------------------------------------


def account_with(**keys: Any) -> Account:  # noqa: ANN401
    listed = [{"account": "shop", "dev_key": "k", **keys}]
    (account,) = read_accounts(check_settings({"accounts": listed}, SCHEMA, NOW))
    return account


def test_a_secret_comes_from_a_variable_or_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHOP_SECRET", "密-fake ${X}")
    assert account_with(dev_secret_env="SHOP_SECRET").dev_secret == "密-fake ${X}"
    real = tmp_path / "real"
    real.write_text("\ufeffof-the-file", encoding="utf-8")
    link = tmp_path / "link"
    link.symlink_to(real)  # as Kubernetes mounts secrets
    assert account_with(dev_secret_file=str(link)).dev_secret == "of-the-file"
    assert account_with(dev_secret_file=str(real), dev_secret=None).dev_secret == "of-the-file"


def test_accounts_in_a_file_refer_to_secrets_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHOP_SECRET", "fake")
    path = tmp_path / "accounts.jsonl"
    path.write_text('{"account": "shop", "dev_key": "k", "dev_secret_env": "SHOP_SECRET"}\n')
    (account,) = read_accounts({"accounts_file": str(path)})
    assert account.dev_secret == "fake"
    assert "fake" not in repr(account)
    path.write_text('{"account": "shop", "dev_key": "k", "dev_secret_env": "SHOW-ME-NOT"}\n')
    with pytest.raises(SettingsError, match=r"^accounts_file, line 1: dev_secret_env: "):
        read_accounts({"accounts_file": str(path)})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"SHOW-ME-NOT\n", "has leading or trailing whitespace (possibly a newline from a file)"),
        (b"SHOW-ME-NOT\r\n", "has leading or trailing whitespace"),
        (b"", "is empty"),
        (b"SHOW\x00ME-NOT", "contains a control character"),
        (b"\xff\xfeS\x00H\x00", "is not a file in UTF-8"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_secret_file_is_checked_like_a_secret(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "SHOW-ME-NOT"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as refusal:
        account_with(dev_secret_file=str(path))
    (line,) = refusal.value.problems
    assert line.startswith(f"accounts[0].dev_secret_file: {problem}")
    assert "ME-NOT" not in line


@pytest.mark.parametrize("path", [".", "", "no\0where"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match=r"^accounts\[0\]\.dev_secret_file: (cannot|is not)"):
        account_with(dev_secret_file=path)


@pytest.mark.parametrize("name", ["SHOW_ME_NOT", "", "a=b", "\udcff"])
def test_a_variable_that_is_not_set_is_refused_and_its_name_is_not_shown(name: str) -> None:
    # Somebody may have put the secret itself there.
    with pytest.raises(SettingsError) as refusal:
        account_with(dev_secret_env=name)
    assert refusal.value.problems == (
        "accounts[0].dev_secret_env: the environment variable of this name is not set",
    )


def test_an_account_has_one_secret() -> None:
    with pytest.raises(SettingsError) as refusal:
        account_with(dev_secret="x", dev_secret_file="y")
    assert refusal.value.problems == (
        "accounts[0].dev_secret, dev_secret_file: only one of them can be set",
    )
    with pytest.raises(SettingsError, match=r"^accounts\[0\]\.dev_secret: not set$"):
        account_with()


# --- enabled ------------------------------------------------------------------------------------


def test_an_account_that_is_not_enabled_is_checked() -> None:
    assert account_with(dev_secret="s", enabled=False).enabled is False
    assert account_with(dev_secret="s", enabled=None).enabled is True
    with pytest.raises(SettingsError, match=r"dev_secret: is empty"):
        account_with(dev_secret="", enabled=False)


@pytest.mark.parametrize("value", ["false", 0, "no", []])
def test_enabled_is_true_or_false(value: object) -> None:
    with pytest.raises(SettingsError, match=r"^accounts\[0\]\.enabled: must be true or false$"):
        account_with(dev_secret="s", enabled=value)


# --- base_url -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "url"),
    [
        ("HTTPS://Proxy.Example", "https://proxy.example/v1/balance"),
        ("https://proxy.example:443/", "https://proxy.example/v1/balance"),
        ("hTTps://PROXY.example:0443//", "https://proxy.example/v1/balance"),
        ("https://proxy.example:8443", "https://proxy.example:8443/v1/balance"),
        ("https://proxy.example/Prefix/a", "https://proxy.example/Prefix/a/v1/balance"),
        ("https://B\u00dcCHER.example", "https://xn--bcher-kva.example/v1/balance"),
        ("HTTP://LOCALHOST:80", "http://localhost/v1/balance"),
        ("HTTP://127.0.0.1:8642", "http://127.0.0.1:8642/v1/balance"),
        ("http://127.8.9.1:8642", "http://127.8.9.1:8642/v1/balance"),
        ("http://[::1]:80/x/", "http://[::1]/x/v1/balance"),
    ],
)
def test_all_spellings_of_a_base_url_give_one_url(spelling: str, url: str) -> None:
    assert account_with(dev_secret="s", base_url=spelling).url == url


@pytest.mark.parametrize(
    "base_url",
    ["HTTP://proxy.example", "FTP://proxy.example", "HTTPS://u:p@proxy.example", "proxy.example",
     "https://@proxy.example", "https:/proxy.example", "http://127.0.0.1.example", "https://a..b",
     "https://proxy.example:x", "https://proxy\uff0fexample", "http://2130706433", "https://",
     "https://proxy.example\\@evil.example", "https://proxy.example?", "https://proxy.example#"],
)  # fmt: skip
def test_a_base_url_that_is_not_safe_is_refused(base_url: str) -> None:
    with pytest.raises(SettingsError, match=r"^accounts\[0\]\.base_url: "):
        account_with(dev_secret="s", base_url=base_url)


@pytest.mark.parametrize("currency", ["USD\n", "usd", " USD", "\uff35SD"])
def test_a_currency_is_three_capital_letters_and_nothing_else(currency: str) -> None:
    with pytest.raises(SettingsError, match="currency: must be three capital letters"):
        account_with(dev_secret="s", currency=currency)
