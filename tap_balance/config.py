"""The settings: declared once, read from files and the environment, checked without showing any."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, get_args

from singer_sdk import typing as th

from tap_balance.errors import SettingsError
from tap_balance.snapshots import parse_interval, snapshot_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pendulum
    from jsonschema import ValidationError

Product: TypeAlias = Literal["sms", "otp"]
PRODUCTS: tuple[Product, ...] = get_args(Product)
SECRET_FORMS = ("dev_secret", "dev_secret_env", "dev_secret_file")
"""How an account in a list or file gives its secret: as text, or by reference."""

LONGEST_NAME = 255
"""A name is part of the primary key, and Postgres indexes no key beyond 2,704 bytes."""

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file that are read; a hundred thousand accounts need a quarter of it."""

MAX_PROBLEMS = 10
"""Lines about invalid settings that are shown at most."""

_ENV_PREFIX = "TAP_BALANCE_"
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
# Python's own `int` and `float` also take 1_000, digits of other scripts, and "infinity".
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)

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
        "Address to use instead of the product's own. https only, except on loopback; no user "
        "or password in it; a path prefix is kept."
    ),
)
_CURRENCY = th.Property(
    "currency",
    th.StringType(pattern="^[A-Z]{3}$", max_length=3),
    title="Currency",
    description="ISO 4217 code for the records of sms accounts, whose response has no currency.",
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
                    secret=True,
                    description="API secret; or use one of the next two.",
                ),
                th.Property(
                    "dev_secret_env",
                    th.StringType,
                    description="Name of the environment variable with the API secret.",
                ),
                th.Property(
                    "dev_secret_file",
                    th.StringType,
                    description="Path of the file with the API secret, and nothing else in it.",
                ),
                th.Property(
                    "product", th.StringType, allowed_values=list(PRODUCTS), description="Product."
                ),
                _BASE_URL,
                _CURRENCY,
                th.Property(
                    "enabled",
                    th.BooleanType,
                    description="false: the account is checked, but no request is sent for it.",
                ),
                additional_properties=False,
            ),
        ),
        secret=True,
        title="Accounts",
        description=(
            "Several accounts, instead of dev_key, dev_secret and account: a list of objects with "
            "account, dev_key, dev_secret (or dev_secret_env or dev_secret_file), and optionally "
            "product, base_url and currency, which default to the top-level settings of the same "
            "name, and enabled."
        ),
    ),
    th.Property(
        "accounts_file",
        th.StringType,
        title="Accounts file",
        description=(
            "Path of a file with the accounts, instead of accounts: a JSON array, or JSON Lines, "
            "of such objects. Needed through Meltano from about 1,300 accounts on, since it passes "
            "every setting in an environment variable, which Linux limits to 128 KiB."
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
        "snapshot_at",
        th.StringType,
        title="Snapshot at",
        description=(
            "Start of the interval to store under, such as 2026-01-31T10:00:00Z, instead of the "
            "one in which the run begins. A scheduler sets it for all shards of a run. At most "
            "five minutes ahead of the clock and at most two intervals old."
        ),
    ),
    th.Property(
        "request_timeout",
        th.NumberType(exclusive_minimum=0, maximum=3600),
        default=30,
        title="Request timeout",
        description=(
            "Seconds for one attempt, from its start to the last byte of the response. The "
            "system's own name look-up cannot be interrupted and may take longer."
        ),
    ),
    th.Property(
        "max_attempts",
        th.IntegerType(minimum=1, maximum=100),
        default=5,
        title="Max attempts",
        description="Attempts per account, the first included.",
    ),
    th.Property(
        "max_elapsed",
        th.NumberType(minimum=1, maximum=86_400),
        default=120,
        title="Max seconds per account",
        description="Seconds per account, retries and waits included.",
    ),
    th.Property(
        "max_concurrency",
        th.IntegerType(minimum=1, maximum=1000),
        default=32,
        title="Max concurrent requests",
        description="Requests in flight at most.",
    ),
    th.Property(
        "shard",
        th.StringType,
        title="Shard",
        description=(
            "i/n, i from 1 to n: this run takes the i-th of n slices of the accounts. Slices are "
            "assigned by account name, so adding an account does not move the others."
        ),
    ),
).to_dict()
ACCOUNT_SCHEMA: dict[str, Any] = SETTINGS["properties"]["accounts"]["items"]
ACCOUNT_SCHEMA["oneOf"] = [{"required": [name]} for name in SECRET_FORMS]


def read_settings(sources: Iterable[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings that `--config` names.

    Args:
        sources: Paths of JSON files, of which the last one wins, and "ENV" for the environment,
            which wins over files.
        schema: The settings, those that the SDK adds included.

    Raises:
        SettingsError: Something cannot be read.
    """
    sources = list(sources)
    settings: dict[str, Any] = {}
    for path in sources:
        if path != "ENV":
            settings |= _read_config_file(path)
    return settings | (read_environment(schema) if "ENV" in sources else {})


def _read_config_file(path: str) -> dict[str, Any]:
    if "{" in path:
        # Somebody has put the settings there; a path is shown, and they must not be.
        msg = "--config: is not a path; write the settings into a file, or use --config=ENV"
        raise SettingsError(msg)
    place = f"--config {path if path.isprintable() else ascii(path)}"
    try:
        text = read_text(path)
    except OSError as error:
        msg = f"{place}: {error.strerror}"
        raise SettingsError(msg) from None
    except ValueError:  # another encoding, or a path with a NUL
        msg = f"{place}: not JSON in UTF-8"
        raise SettingsError(msg) from None
    config = parse_json(text, place)
    if not isinstance(config, dict):
        msg = f"{place}: not a JSON object"
        raise SettingsError(msg)
    return config


def read_environment(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings from the environment (`--config=ENV`).

    The SDK's own reader fails without naming the variable, and it looks for a file `.env` in the
    folders above its own code, which would override what has been set.

    Args:
        schema: The settings, those that the SDK adds included.

    Raises:
        SettingsError: Some variables cannot be read as their setting's type.
    """
    config: dict[str, Any] = {}
    problems = []
    for name, setting in schema["properties"].items():
        variable = variable_of(name)
        text = os.environ.get(variable)
        if text is None or (not text and name not in {"dev_key", "dev_secret"}):
            continue  # compose files and CI systems set variables to nothing
        try:
            config[name] = _parse_variable(text, setting["type"])
        except _RepeatedKeyError as error:
            problems.append(f"{name}: the environment variable {variable} {error}")
        except (ValueError, RecursionError):
            kind = kind_of(setting)
            problems.append(f"{name}: the environment variable {variable} is not {kind}")
    if problems:
        raise SettingsError(*problems)
    return config


def variable_of(setting: str) -> str:
    """Name the environment variable of a setting."""
    return f"{_ENV_PREFIX}{setting.upper()}"


def _parse_variable(text: str, types: Sequence[str]) -> Any:  # noqa: ANN401
    if "integer" in types:
        if not _INTEGER.fullmatch(text):
            raise ValueError
        return int(text)
    if "boolean" in types:
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError
        return word in _TRUE
    if "array" in types or "object" in types:
        return _loads(text)
    return text


def read_text(path: str) -> str:
    """Read a file in UTF-8; a byte order mark, as some editors write it, does no harm.

    Raises:
        OSError: It cannot be read, or is larger than `LARGEST_FILE`.
        ValueError: It is in another encoding, or the path has a NUL in it.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - `Path` would take "" for the working directory
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(0, f"larger than {LARGEST_FILE // 1024**2} MiB")
    return content.decode("utf-8-sig")


def parse_json(text: str, place: str, *, lines: bool = True) -> Any:  # noqa: ANN401
    """Parse JSON as its standard has it: without NaN, and no object with a key twice.

    Args:
        text: The document.
        place: Where it is from, to begin the error with.
        lines: Whether the error names the line, not only the column.

    Raises:
        SettingsError: It is not JSON. The line shows nothing of it but a repeated key.
    """
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if lines else f"column {error.colno}"
        msg = f"{place}: not JSON ({where})"
    except _RepeatedKeyError as error:
        msg = f"{place}: {error}"
    except (ValueError, RecursionError):
        msg = f"{place}: not JSON"
    raise SettingsError(msg)


class _RepeatedKeyError(ValueError):
    """Nobody can say which of the two values is meant."""


def _loads(text: str) -> Any:  # noqa: ANN401
    return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)


def _refuse(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            msg = f"has the key {_shown(key)} twice in one object"
            raise _RepeatedKeyError(msg)
        found[key] = value
    return found


def check_settings(
    given: Mapping[str, Any], schema: dict[str, Any], now: pendulum.DateTime
) -> dict[str, Any]:
    """Check the types and ranges of all settings.

    Text is accepted for a number, because an environment variable has no type and the SDK
    converts integers only (meltano/sdk#1896). Null is not set, nor is empty text.

    Args:
        given: The settings as they were read.
        schema: Their JSON Schema.
        now: The moment that `snapshot_at` is compared with.

    Returns:
        The settings that are set, with the defaults filled in.

    Raises:
        SettingsError: Something is wrong; each line names a setting, none shows a value.
    """
    checked = with_defaults(given, schema)
    for name, setting in schema["properties"].items():
        value = checked.get(name)
        if "number" in setting["type"] and isinstance(value, str):
            checked[name] = _number(value)
        elif "integer" in setting["type"] and isinstance(value, float) and value.is_integer():
            checked[name] = int(value)
    if isinstance(listed := checked.get("accounts"), list):
        checked["accounts"] = [without_nulls(entry) for entry in listed]
    # The SDK's own validator puts values into its messages, and the defaults into the config.
    errors = list(th.DEFAULT_JSONSCHEMA_VALIDATOR(schema).iter_errors(checked))
    problems = [explain(error) for error in errors]
    invalid = {error.path[0] for error in errors if error.path}
    for name, parse in (("snapshot_interval", parse_interval), ("shard", parse_shard)):
        if name in checked and name not in invalid and (found := _problems(parse, checked[name])):
            problems += found
            invalid.add(name)
    if not invalid & {"snapshot_interval", "snapshot_at"}:
        problems += _problems(snapshot_of_run, checked, now)
    if problems:
        raise SettingsError(*list(dict.fromkeys(problems))[:MAX_PROBLEMS])
    return checked


def with_defaults(given: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of the settings that are not set.

    `account` keeps its place empty: whether it was set decides which form the accounts have. An
    empty key or secret is kept as well: that it is empty is what is wrong with it.
    """
    defaults = {
        name: setting["default"]
        for name, setting in schema["properties"].items()
        if "default" in setting and name != "account"
    }
    return defaults | {
        name: value
        for name, value in given.items()
        if value is not None and (value != "" or name in {"dev_key", "dev_secret"})
    }


def without_nulls(entry: Any) -> Any:  # noqa: ANN401
    """Leave out what is null in an account: it is not set."""
    if not isinstance(entry, dict):
        return entry
    return {name: value for name, value in entry.items() if value is not None}


def _problems(check: Callable[..., object], *arguments: object) -> tuple[str, ...]:
    try:
        check(*arguments)
    except SettingsError as error:
        return error.problems
    return ()


def _number(text: str) -> float | str:
    number = (
        float(text) if re.fullmatch(r"\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*", text) else math.nan
    )
    return number if math.isfinite(number) else text


def parse_shard(text: str) -> tuple[int, int]:
    """Read a shard, `i/n`.

    Returns:
        i, from 1 to n, and n.

    Raises:
        SettingsError: It is not a valid shard.
    """
    match = _SHARD.fullmatch(text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        msg = "shard: must be i/n with i from 1 to n, such as 1/4"
        raise SettingsError(msg)
    return index, count


def unknown_settings(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """List the settings that mean nothing here, each in a line with the name that may be meant.

    They are no error: Meltano passes on whatever else is in the tap's `config`.
    """
    lines = []
    for name in config:
        if name not in schema["properties"]:
            meant = difflib.get_close_matches(name, schema["properties"], n=1)
            hint = f"; did you mean '{meant[0]}'?" if meant else ""
            lines.append(f"unknown setting {_shown(name)} ignored{hint}")
    return lines[:MAX_PROBLEMS]


def kind_of(setting: Mapping[str, Any]) -> str:
    """Name the type of a setting to the user, e.g. "a whole number".

    Args:
        setting: Its JSON Schema.
    """
    kinds = {"string": "a string", "integer": "a whole number", "number": "a number"}
    kinds |= {"array": "a JSON list", "object": "a JSON object", "boolean": "true or false"}
    types = setting["type"]
    types = [types] if isinstance(types, str) else types
    return " or ".join(kinds[name] for name in types if name in kinds)


def explain(error: ValidationError) -> str:
    """Describe what is wrong with a setting, without its value: jsonschema's messages show it."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path)
    where = path.removeprefix(".")
    schema: Any = error.schema
    instance: Any = error.instance
    rule: Any = error.validator_value
    if error.validator in {"required", "oneOf"} and isinstance(instance, dict):
        # Only accounts have these rules; both lead to one line, of which one is shown.
        prefix = f"{where}." if where else ""
        missing = [name for name in ("account", "dev_key") if name not in instance]
        given = [name for name in SECRET_FORMS if name in instance]
        if len(given) > 1:
            return f"{prefix}{', '.join(given)}: only one of them can be set"
        missing += [] if given else ["dev_secret"]
        return ", ".join(f"{prefix}{name}" for name in missing) + ": not set"

    def must_be() -> str:
        quotes = "; put quotes around it" if "string" in schema["type"] else ""
        return f"must be {kind_of(schema)}" + quotes

    explanations: dict[str, Callable[[], str]] = {
        "additionalProperties": lambda: _unknown_keys(instance, schema["properties"]),
        "type": must_be,
        "oneOf": must_be,  # whatever is not an object fulfills all of its parts
        "enum": lambda: f"must be one of {', '.join(filter(None, rule))}",
        "exclusiveMinimum": lambda: f"must be more than {rule}",
        "minimum": lambda: f"must be at least {rule}",
        "maximum": lambda: f"must be at most {rule}",
        "maxLength": lambda: f"must have at most {rule} characters",
        "pattern": lambda: "must be three capital letters, such as USD",
    }
    kind = "pattern" if "pattern" in schema and error.validator == "maxLength" else error.validator
    line = explanations.get(str(kind), lambda: f"breaks the rule {error.validator!r}")()
    return f"{where}: {line}" if where else line


def _unknown_keys(instance: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    unknown = sorted(name for name in instance if name not in known)
    meant = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
    hint = f"; did you mean {', '.join(map(repr, dict.fromkeys(meant)))}?" if meant else ""
    return f"unknown key {', '.join(map(_shown, unknown))}; known are {', '.join(known)}" + hint


def _shown(name: str) -> str:
    """Show a name from a config, cut short; `ascii` distinguishes letters that look alike."""
    return ascii(name[:40])
