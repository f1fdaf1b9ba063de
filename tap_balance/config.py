"""The settings: declared once, read from files and the environment, checked without showing any."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from singer_sdk import typing as th

from tap_balance import strict_json
from tap_balance.errors import SettingsError
from tap_balance.snapshots import parse_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jsonschema import ValidationError

Product: TypeAlias = Literal["sms", "otp"]
PRODUCTS: tuple[Product, ...] = get_args(Product)
LONGEST_NAME = 255
"""A name is part of the primary key, and Postgres indexes no key beyond 2,704 bytes."""
MOST_PROBLEMS = 10
"""Lines about wrong settings that are shown at most."""
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)
_TRUE = {"true", "1", "yes", "on"}

_PRODUCT: th.Property[Any] = th.Property(
    "product",
    th.StringType,
    allowed_values=list(PRODUCTS),
    default="sms",
    title="Product",
    description="EngageLab product of the account, which decides the body to expect: sms or otp.",
)
_BASE_URL = th.Property(
    "base_url",
    th.StringType,
    title="Base URL",
    description=(
        "Where to ask instead of the product's own address. https only, except on loopback; "
        "no user and password in it; a path prefix is kept."
    ),
)
_CURRENCY = th.Property(
    "currency",
    th.StringType(pattern="^[A-Z]{3}$"),
    title="Currency",
    description="ISO 4217 code for the records of sms accounts, whose answer names no currency.",
)

SETTINGS: dict[str, Any] = th.PropertiesList(
    th.Property(
        "dev_key",
        th.StringType,
        title="Dev key",
        description="API key of the single account; the user name of HTTP Basic.",
    ),
    th.Property(
        "dev_secret",
        th.StringType,
        secret=True,
        title="Dev secret",
        description="API secret of the single account; the password of HTTP Basic.",
    ),
    th.Property(
        "account",
        th.StringType(max_length=LONGEST_NAME),
        default="default",
        title="Account",
        description="Name that the records of the single account carry.",
    ),
    th.Property(
        "accounts",
        th.ArrayType(
            th.ObjectType(
                th.Property(
                    "account",
                    th.StringType(max_length=LONGEST_NAME),
                    required=True,
                    description="Name that the records carry; different for each account.",
                ),
                th.Property("dev_key", th.StringType, required=True, description="API key."),
                th.Property(
                    "dev_secret",
                    th.StringType,
                    required=True,
                    secret=True,
                    description="API secret.",
                ),
                th.Property(
                    "product", th.StringType, allowed_values=list(PRODUCTS), description="Product."
                ),
                _BASE_URL,
                _CURRENCY,
                additional_properties=False,
            ),
        ),
        secret=True,
        title="Accounts",
        description=(
            "Several accounts, instead of dev_key, dev_secret and account: a list of objects with "
            "account, dev_key, dev_secret, and optionally product, base_url and currency, which "
            "else come from the settings of the same name."
        ),
    ),
    th.Property(
        "accounts_file",
        th.StringType,
        title="Accounts file",
        description=(
            "Path of a file with the accounts, instead of accounts: a JSON array, or JSON Lines, "
            "of such objects. Needed through Meltano from about 1,300 accounts on, since it hands "
            "every setting over in an environment variable, which Linux limits to 128 KiB."
        ),
    ),
    _PRODUCT,
    _BASE_URL,
    _CURRENCY,
    th.Property(
        "snapshot_interval",
        th.StringType,
        default="PT1S",
        title="Snapshot interval",
        description=(
            "ISO 8601 duration that divides a day. Runs within one interval write the same key, "
            "so that an upserting target keeps one row per account and interval. Set it to the "
            "schedule, such as PT1H."
        ),
    ),
    th.Property(
        "request_timeout",
        th.NumberType(exclusive_minimum=0, maximum=3600),
        default=30,
        title="Request timeout",
        description="Seconds for one answer, from the first byte sent to the last one received "
        "(connecting: at most 10).",
    ),
    th.Property(
        "max_attempts",
        th.IntegerType(minimum=1, maximum=100),
        default=5,
        title="Most attempts",
        description="Tries per account, the first included.",
    ),
    th.Property(
        "max_elapsed",
        th.NumberType(minimum=1, maximum=86_400),
        default=120,
        title="Most seconds per account",
        description="Seconds per account, retries and waits included.",
    ),
    th.Property(
        "max_concurrency",
        th.IntegerType(minimum=1, maximum=1000),
        default=32,
        title="Most requests at once",
        description="Requests in flight at most.",
    ),
    th.Property(
        "shard",
        th.StringType,
        title="Shard",
        description=(
            "i/n, i from 1 to n: this run takes the i-th of n slices of the accounts. An "
            "account's name decides on its slice, so that another account more moves none."
        ),
    ),
).to_dict()


def read_config(path: str) -> dict[str, Any]:
    """Read a config file; a byte order mark, as some editors write it, does no harm.

    Raises:
        SettingsError: It cannot be read, or is no JSON object. The line shows nothing of it.
    """
    if "{" in path:
        # Somebody has put the settings there; a path is shown, and they must not be.
        msg = "--config: is not a path; write the settings into a file, or use --config=ENV"
        raise SettingsError(msg)
    try:
        config = strict_json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"--config {path}: {error.strerror}"
        raise SettingsError(msg) from None
    except json.JSONDecodeError as error:
        msg = f"--config {path}: not JSON (line {error.lineno}, column {error.colno})"
        raise SettingsError(msg) from None
    except (ValueError, RecursionError):
        msg = f"--config {path}: not JSON in UTF-8"
        raise SettingsError(msg) from None
    if not isinstance(config, dict):
        msg = f"--config {path}: not a JSON object"
        raise SettingsError(msg)
    return config


def read_environment(schema: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Read the settings from the environment (`--config=ENV`).

    The SDK's own reader fails without saying at which variable. And it looks for a file `.env` in
    the folders above its own code, which would override what has been set.

    Args:
        schema: The settings, those that the SDK adds included.
        prefix: What the variables' names begin with, such as "TAP_BALANCE_".

    Raises:
        SettingsError: Some variables cannot be read as their setting's type.
    """
    config: dict[str, Any] = {}
    problems = []
    for name, setting in schema["properties"].items():
        variable = f"{prefix}{name.upper()}"
        if variable not in os.environ:
            continue
        try:
            config[name] = _parse_text(os.environ[variable], setting["type"])
        except (ValueError, RecursionError):
            kind = kind_of(setting)
            problems.append(f"{name}: the environment variable {variable} is not {kind}")
    if problems:
        raise SettingsError(*problems)
    return config


def _parse_text(text: str, types: Sequence[str]) -> Any:  # noqa: ANN401
    if "integer" in types:
        return int(text)
    if "boolean" in types:
        return text.strip().lower() in _TRUE
    if "array" in types or "object" in types:
        return strict_json.loads(text)
    return text


def with_defaults(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of the settings that are not set (null is not set).

    `account` keeps its place empty: whether it was set decides which form the accounts have.
    """
    given = {name: value for name, value in config.items() if value is not None}
    defaults = {
        name: setting["default"]
        for name, setting in schema["properties"].items()
        if "default" in setting and name != "account"
    }
    return defaults | given


def check_types(config: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Check the types and ranges of all settings.

    Text is taken for a number where a number belongs, because an environment variable has no
    type and the SDK converts integers only (meltano/sdk#1896).

    Returns:
        The settings with the defaults filled in.

    Raises:
        SettingsError: Something is wrong; each line names a setting, none shows a value.
    """
    checked = with_defaults(config, schema)
    for name, setting in schema["properties"].items():
        value = checked.get(name)
        if "number" in setting["type"] and isinstance(value, str):
            checked[name] = _number(value)
        elif "integer" in setting["type"] and isinstance(value, float) and value.is_integer():
            checked[name] = int(value)
    # The SDK's own validator puts values into its messages, and the defaults into the config.
    validator = th.DEFAULT_JSONSCHEMA_VALIDATOR(schema)
    errors = list(validator.iter_errors(checked))
    problems = [_explain(error) for error in errors]
    of_wrong_type = {error.path[0] for error in errors if error.path}
    for name, parse in (("snapshot_interval", parse_interval), ("shard", parse_shard)):
        if name in checked and name not in of_wrong_type:
            problems += _problems_of(parse, checked[name])
    if problems:
        raise SettingsError(*list(dict.fromkeys(problems))[:MOST_PROBLEMS])
    return checked


def unknown_settings(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Say which settings mean nothing here, each in a line with the name that may be meant.

    They are no error: Meltano passes on what else stands in the tap's `config`.
    """
    lines = []
    for name in config:
        if name not in schema["properties"]:
            meant = difflib.get_close_matches(name, schema["properties"], n=1)
            hint = f"; is {meant[0]} meant?" if meant else ""
            lines.append(f"{name[:40]!r} is no setting of this tap and is ignored{hint}")
    return lines[:MOST_PROBLEMS]


def _problems_of(parse: Callable[[str], object], text: str) -> tuple[str, ...]:
    try:
        parse(text)
    except SettingsError as error:
        return error.problems
    return ()


def check_entries(entries: Iterable[tuple[str, Any]]) -> None:
    """Check the types of accounts that come from elsewhere, by the rules of `accounts`.

    Args:
        entries: Each with the prefix under which to name it.

    Raises:
        SettingsError: Something is wrong; each line begins with such a prefix.
    """
    validator = th.DEFAULT_JSONSCHEMA_VALIDATOR(SETTINGS["properties"]["accounts"]["items"])
    problems = (
        f"{place}{_explain(error)}"
        for place, entry in entries
        for error in validator.iter_errors(entry)
    )
    if found := list(islice(dict.fromkeys(problems), MOST_PROBLEMS)):
        raise SettingsError(*found)


def _number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def kind_of(setting: Mapping[str, Any]) -> str:
    """Name the type of a setting to the user, e.g. "a whole number".

    Args:
        setting: Its JSON Schema.
    """
    kinds = {"string": "a string", "integer": "a whole number", "number": "a number"}
    kinds |= {"array": "a JSON list", "object": "a JSON object"}
    types = setting["type"]
    types = [types] if isinstance(types, str) else types
    return " or ".join(kinds[name] for name in types if name in kinds)


def _explain(error: ValidationError) -> str:
    """Say what is wrong with a setting, without its value: jsonschema's own messages show it."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path)
    where = path.removeprefix(".")
    schema: Any = error.schema
    instance: Any = error.instance
    rule: Any = error.validator_value
    if error.validator == "required":
        # One error for each missing name comes in, and none of them says which; all say the same.
        prefix = f"{where}." if where else ""
        return ", ".join(f"{prefix}{name}" for name in rule if name not in instance) + ": not set"
    explanations: dict[str, Callable[[], str]] = {
        "additionalProperties": lambda: (
            f"unknown key {_unknown_keys(instance, schema)}; "
            f"known are {', '.join(schema['properties'])}"
        ),
        "type": lambda: (
            f"must be {kind_of(schema)}" + ("; put quotes around it" if _is_text(schema) else "")
        ),
        "enum": lambda: f"must be one of {', '.join(filter(None, rule))}",
        "exclusiveMinimum": lambda: f"must be more than {rule}",
        "minimum": lambda: f"must be at least {rule}",
        "maximum": lambda: f"must be at most {rule}",
        "maxLength": lambda: f"must have at most {rule} characters",
        "pattern": lambda: "must be three capital letters, such as USD",
    }
    explain = explanations.get(str(error.validator), lambda: f"breaks the rule {error.validator!r}")
    return f"{where}: {explain()}" if where else explain()


def _unknown_keys(instance: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    return ", ".join(
        sorted(repr(name[:40]) for name in instance if name not in schema["properties"])
    )


def _is_text(schema: Mapping[str, Any]) -> bool:
    return "string" in schema["type"]


def parse_shard(text: str) -> tuple[int, int]:
    """Read a shard, `i/n`.

    Returns:
        i, from 1 to n, and n.

    Raises:
        SettingsError: It is none.
    """
    match = _SHARD.fullmatch(text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        msg = "shard: must be i/n with i from 1 to n, such as 1/4"
        raise SettingsError(msg)
    return index, count
