"""The settings: read from files and the environment, and checked without showing any value."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, Literal, TypeAlias

import pendulum
from jsonschema import ValidationError
from singer_sdk.typing import DEFAULT_JSONSCHEMA_VALIDATOR

from tap_balance.errors import MAX_PROBLEMS, SettingsError
from tap_balance.snapshots import snapshot_of_run

Product: TypeAlias = Literal["sms", "otp"]

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file that are read; a hundred thousand accounts need a quarter of it."""

_WORDS = dict.fromkeys(["true", "1", "yes", "on"], True)
_WORDS |= dict.fromkeys(["false", "0", "no", "off"], False)
# Python's own `float` also takes 1_000, digits of other scripts, and "infinity".
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_KINDS = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a JSON list",
    "object": "a JSON object",
}


def read_schema(name: str) -> dict[str, Any]:
    """Read a file of `schemas/`: a wheel has them in the package, a checkout at its top level."""
    package = files(__package__)
    folder = package / "schemas"
    if not folder.is_dir():
        folder = package / ".." / "schemas"
    schema: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return schema


SETTINGS = read_schema("settings.json")
"""The declaration of all settings, as JSON Schema."""

_ACCOUNT = DEFAULT_JSONSCHEMA_VALIDATOR(SETTINGS["properties"]["accounts"]["items"])


def read_files(sources: Sequence[str]) -> dict[str, Any]:
    """Read the files that `--config` names, of which the last one wins; "ENV" is not one.

    Raises:
        SettingsError: One cannot be read, or is not a JSON object.
    """
    settings: dict[str, Any] = {}
    for path in sources:
        if path == "ENV":
            continue
        if "{" in path:
            # Somebody has put the settings there; a path is shown, and they must not be.
            raise SettingsError(
                "--config: is not a path; write the settings into a file, or use --config=ENV"
            )
        try:
            config = parse_json(read_text(path))
        except ValueError as error:
            raise SettingsError(f"--config {path!r}: {error}") from None
        if not isinstance(config, dict):
            raise SettingsError(f"--config {path!r}: is not a JSON object")
        settings |= config
    return settings


def read_environment(schema: Mapping[str, Any]) -> dict[str, str]:
    """Read the settings from the environment (`--config=ENV`), as text; CI sets some to nothing.

    The SDK's own reader looks for a file `.env` in the folders above its own code, which would
    override what has been set. `schema`, here and below, has the settings that the SDK adds.
    """
    found = {name: os.environ.get(variable_of(name)) for name in schema["properties"]}
    return {name: text for name, text in found.items() if text is not None and _is_set(name, text)}


def _is_set(name: str, value: object) -> bool:
    # Empty keys do not count as not set: that they are empty is what is wrong with them.
    return value is not None and (value != "" or name in {"dev_key", "dev_secret"})


def variable_of(setting: str) -> str:
    """Name the environment variable of a setting."""
    return f"TAP_BALANCE_{setting.upper()}"


def read_text(path: str) -> str:
    """Read a file in UTF-8; a byte order mark, as some editors write it, does no harm.

    Raises:
        ValueError: It cannot be read; the text says why, without the path.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - `Path` takes "" for the working directory
            content = file.read(LARGEST_FILE + 1)
        if len(content) <= LARGEST_FILE:
            return content.decode("utf-8-sig")
        problem = f"is larger than {LARGEST_FILE // 1024**2} MiB"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except ValueError:  # a path with a NUL, or another encoding
        problem = "is not a file in UTF-8"
    raise ValueError(problem)


class RepeatedKeyError(ValueError):
    """An object in JSON has a key twice, and nobody can say which of the two values is meant."""


def parse_json(text: str | bytes, first_line: int = 1, **numbers: Any) -> Any:  # noqa: ANN401
    """Parse JSON without NaN, Infinity and repeated keys, which Python's parser takes.

    `first_line` is the number that its first line has in its file; `numbers` are the hooks
    `parse_int` and `parse_float` of `json.loads`.

    Raises:
        RepeatedKeyError: An object has a key twice; the text shows the key.
        ValueError: It is not JSON; the text shows nothing of it.
    """
    problems: list[str] = []
    try:
        data = json.loads(
            text, parse_constant=problems.append, object_pairs_hook=_unique, **numbers
        )
    except RepeatedKeyError:
        raise
    except json.JSONDecodeError as error:
        problems = [f"line {first_line + error.lineno - 1}, column {error.colno}"]
    except (ValueError, RecursionError):
        problems = ["nested too deep, or a number too long"]
    if problems:
        raise ValueError(f"is not JSON ({problems[0]})")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise RepeatedKeyError(f"has the key {_shown(key)} twice in one object")
    return found


def check_settings(
    given: Mapping[str, Any], schema: Mapping[str, Any], now: pendulum.DateTime
) -> dict[str, Any]:
    """Check the types and ranges of all settings, fill in the defaults, drop what is unknown.

    Null is not set, nor is empty text. `snapshot_at` is compared with `now`. What is inside a list
    of accounts is not looked at: `read_accounts` does that.

    Raises:
        SettingsError: Something is wrong; each line names a setting, none shows a value.
    """
    checked: dict[str, Any] = {}
    problems: list[str] = []
    for name, setting in schema["properties"].items():
        value = given.get(name)
        try:
            value = _from_text(value, setting["type"]) if _is_set(name, value) else None
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        # `account` has no default here: whether it was set decides which form the accounts have.
        if value is None and name != "account":
            value = setting.get("default")
        if value is not None:
            checked[name] = value
    # The SDK's own check puts values into its messages, and the defaults into the config.
    shallow = checked | ({"accounts": []} if isinstance(checked.get("accounts"), list) else {})
    errors = list(DEFAULT_JSONSCHEMA_VALIDATOR(schema).iter_errors(shallow))
    problems += [_explain(error) for error in errors]
    invalid = {error.path[0] for error in errors}
    valid = {name: value for name, value in checked.items() if name not in invalid}
    for check in (partial(snapshot_of_run, now=now), parse_shard):
        try:
            check(valid)
        except SettingsError as error:  # noqa: PERF203 - each is named
            problems += error.problems
    if problems:
        raise SettingsError(*problems)
    return checked


def _from_text(value: Any, types: Sequence[str]) -> Any:  # noqa: ANN401
    """Read what a text stands for: variables hold texts only, and a file may quote each value."""
    if isinstance(value, str) and "string" not in types:
        if "array" in types or "object" in types:
            return parse_json(value)
        if "boolean" in types:
            return _WORDS.get(value.strip().lower(), value)
        value = float(value) if _NUMBER.fullmatch(value) else value
    if "integer" in types and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def account_problems(account: Mapping[str, Any]) -> list[str]:
    """List what is wrong with the form of an account in a list or a file."""
    return [_explain(error) for error in _ACCOUNT.iter_errors(account)]


def parse_shard(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Read the shard of a run, `i/n`: i, from 1 to n, and n. Where it is not set, it is 1/1.

    Raises:
        SettingsError: It is not a valid shard.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", settings.get("shard", "1/1"))
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise SettingsError("shard: must be i/n with i from 1 to n, such as 1/4")
    return index, count


def unknown_settings(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """List the settings that mean nothing here, each in a line with the name that may be meant.

    They are no error: Meltano passes on whatever else is in the tap's `config`.
    """
    known = schema["properties"]
    unknown = [name for name in config if name not in known][:MAX_PROBLEMS]
    return [f"unknown setting {_shown(name)} ignored{_hint([name], known)}" for name in unknown]


def _explain(error: ValidationError) -> str:
    """Describe what is wrong with a setting, without its value: jsonschema's messages show it."""
    where = ".".join(map(str, error.path))
    schema: Any = error.schema
    instance: Any = error.instance
    rule: Any = error.validator_value
    kind = "pattern" if "pattern" in schema and error.validator == "maxLength" else error.validator
    if kind == "additionalProperties":
        known = schema["properties"]
        unknown = sorted(name for name in instance if name not in known)
        line = f"unknown key {', '.join(map(_shown, unknown))}; known are {', '.join(known)}"
        line += _hint(unknown, known)
    elif kind == "required":
        line = f"{', '.join(name for name in rule if name not in instance)}: not set"
    elif kind == "type":
        types = [rule] if isinstance(rule, str) else rule
        line = f"must be {' or '.join(_KINDS[name] for name in types if name in _KINDS)}"
        line += "; put quotes around it" if "string" in types else ""
    elif kind == "enum":
        line = f"must be one of {', '.join(rule)}"
    else:
        line = {
            "exclusiveMinimum": f"must be more than {rule}",
            "minimum": f"must be at least {rule}",
            "maximum": f"must be at most {rule}",
            "maxLength": f"must have at most {rule} characters",
            "pattern": "must be three capital letters, such as USD",
        }.get(str(kind), f"breaks the rule {error.validator!r}")
    return f"{where}: {line}" if where else line


def _hint(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Name the known names that the unknown ones look like."""
    meant = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
    return f"; did you mean {', '.join(map(repr, dict.fromkeys(meant)))}?" if meant else ""


def _shown(name: str) -> str:
    """Show a name from a config, cut short; `ascii` distinguishes letters that look alike."""
    return ascii(name[:40])
