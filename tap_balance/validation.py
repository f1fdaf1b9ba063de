"""Whether settings and accounts are of the right types and ranges, said without any value."""

from __future__ import annotations

import difflib
import math
from itertools import islice
from typing import TYPE_CHECKING, Any

from singer_sdk import typing as th

from tap_balance.accounts import MOST_PROBLEMS, parse_shard
from tap_balance.errors import SettingsError
from tap_balance.settings import SETTINGS
from tap_balance.snapshots import parse_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jsonschema import ValidationError


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
