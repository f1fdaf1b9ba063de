"""The settings: read from files and the environment, and checked without showing any value."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from singer_sdk.typing import DEFAULT_JSONSCHEMA_VALIDATOR

from tap_balance.errors import MAX_PROBLEMS, SettingsError
from tap_balance.snapshots import snapshot_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pendulum
    from jsonschema import ValidationError

Product: TypeAlias = Literal["sms", "otp"]
SECRET_FORMS = ("dev_secret", "dev_secret_env", "dev_secret_file")
"""How an account in a list or file gives its secret: as text, or by reference."""

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file that are read; a hundred thousand accounts need a quarter of it."""

_KEYS = ("dev_key", "dev_secret")
"""Empty, these are not taken for not set: that they are empty is what is wrong with them."""

_WORDS = {"true": True, "1": True, "yes": True, "on": True}
_WORDS |= {"false": False, "0": False, "no": False, "off": False}
# Python's own `int` and `float` also take 1_000, digits of other scripts, and "infinity".
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)
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
        if path != "ENV":
            settings |= _read_config_file(path)
    return settings


def _read_config_file(path: str) -> dict[str, Any]:
    if "{" in path:
        # Somebody has put the settings there; a path is shown, and they must not be.
        msg = "--config: is not a path; write the settings into a file, or use --config=ENV"
        raise SettingsError(msg)
    try:
        config = parse_json(read_text(path))
        problem = "is not a JSON object"
    except ValueError as error:
        config, problem = None, str(error)
    if isinstance(config, dict):
        return config
    msg = f"--config {path if path.isprintable() else ascii(path)}: {problem}"
    raise SettingsError(msg)


def read_environment(schema: Mapping[str, Any]) -> dict[str, str]:
    """Read the settings from the environment (`--config=ENV`), as text; CI sets some to nothing.

    The SDK's own reader looks for a file `.env` in the folders above its own code, which would
    override what has been set. `schema`, here and below, has the settings that the SDK adds.
    """
    found = {name: os.environ.get(variable_of(name)) for name in schema["properties"]}
    return {name: text for name, text in found.items() if text is not None and _is_set(name, text)}


def _is_set(name: str, value: object) -> bool:
    return value is not None and (value != "" or name in _KEYS)


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
    """Parse JSON without NaN and Infinity, which Python's parser takes.

    `first_line` is the number that its first line has in its file; `numbers` are the hooks
    `parse_int` and `parse_float` of `json.loads`.

    Raises:
        RepeatedKeyError: An object in it has a key twice, which the text shows.
        ValueError: It is not JSON; the text shows nothing of it.
    """
    constants: list[str] = []
    try:
        found = json.loads(
            text, parse_constant=constants.append, object_pairs_hook=_unique, **numbers
        )
        if not constants:
            return found
        problem = f"is not JSON ({constants[0]})"
    except RepeatedKeyError:
        raise
    except json.JSONDecodeError as error:
        problem = f"is not JSON (line {first_line + error.lineno - 1}, column {error.colno})"
    except (ValueError, RecursionError):  # a number of thousands of digits; nested too deep
        problem = "is not JSON"
    raise ValueError(problem)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        msg = f"has the key {_shown(key)} twice in one object"
        raise RepeatedKeyError(msg)
    return found


def check_settings(
    given: Mapping[str, Any], schema: Mapping[str, Any], now: pendulum.DateTime
) -> dict[str, Any]:
    """Check the types and ranges of all settings, fill in the defaults, drop what is unknown.

    Null is not set, nor is empty text. `snapshot_at` is compared with `now`.

    Raises:
        SettingsError: Something is wrong; each line names a setting, none shows a value.
    """
    checked = _with_defaults(given, schema)
    problems = []
    for name, value in checked.items():
        try:
            checked[name] = _from_text(value, schema["properties"][name]["type"])
        except ValueError as error:  # noqa: PERF203 - each is named
            problems.append(f"{name}: {error}")
            checked[name] = None
    checked = {name: value for name, value in checked.items() if value is not None}
    if isinstance(listed := checked.get("accounts"), list):
        checked["accounts"] = [without_nulls(entry) for entry in listed]
    # The SDK's own check puts values into its messages, and the defaults into the config.
    errors = list(DEFAULT_JSONSCHEMA_VALIDATOR(schema).iter_errors(checked))
    problems += [_explain(error) for error in errors]
    invalid = {error.path[0] for error in errors if error.path}
    if not invalid & {"snapshot_interval", "snapshot_at"}:
        problems += _problems(snapshot_of_run, checked, now)
    if "shard" in checked and "shard" not in invalid:
        problems += _problems(parse_shard, checked["shard"])
    if problems:
        raise SettingsError(*problems)
    return checked


def _with_defaults(given: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    # `account` has none here: whether it was set decides which form the accounts have.
    defaults = {
        name: setting["default"]
        for name, setting in schema["properties"].items()
        if "default" in setting and name != "account"
    }
    return defaults | {
        name: given[name] for name in schema["properties"] if _is_set(name, given.get(name))
    }


def _from_text(value: Any, types: Sequence[str]) -> Any:  # noqa: ANN401
    """Read what a text stands for: variables hold texts only, and a file may quote each value.

    Raises:
        ValueError: It is not JSON where it has to be.
    """
    if "integer" in types and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str) or "string" in types:
        return value
    if "array" in types or "object" in types:
        return parse_json(value)
    if "boolean" in types:
        return _WORDS.get(value.strip().lower(), value)
    pattern, kind = (_INTEGER, int) if "integer" in types else (_NUMBER, float)
    return kind(value) if pattern.fullmatch(value) else value


def _problems(check: Callable[..., object], *arguments: object) -> tuple[str, ...]:
    try:
        check(*arguments)
    except SettingsError as error:
        return error.problems
    return ()


def account_problems(entry: Any) -> list[str]:  # noqa: ANN401
    """List what is wrong with the form of an account that is not from the settings."""
    return [_explain(error) for error in _ACCOUNT.iter_errors(entry)]


def without_nulls(entry: Any) -> Any:  # noqa: ANN401
    """Leave out what is null in an account: it is not set."""
    if not isinstance(entry, dict):
        return entry
    return {name: value for name, value in entry.items() if value is not None}


def parse_shard(text: str) -> tuple[int, int]:
    """Read a shard, `i/n`: i, from 1 to n, and n.

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
    known = schema["properties"]
    unknown = (name for name in config if name not in known)
    return [
        f"unknown setting {_shown(name)} ignored{_hint([name], known)}"
        for name in islice(unknown, MAX_PROBLEMS)
    ]


def _kind_of(setting: Mapping[str, Any]) -> str:
    types = [setting["type"]] if isinstance(setting["type"], str) else setting["type"]
    return " or ".join(_KINDS[name] for name in types if name in _KINDS)


def _explain(error: ValidationError) -> str:
    """Describe what is wrong with a setting, without its value: jsonschema's messages show it."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path)
    where = path.removeprefix(".")
    schema: Any = error.schema
    instance: Any = error.instance
    rule: Any = error.validator_value
    if error.validator == "required":  # only accounts have this rule
        prefix = f"{where}." if where else ""
        missing = [name for name in ("account", "dev_key") if name not in instance]
        missing += [] if any(name in instance for name in SECRET_FORMS) else ["dev_secret"]
        return ", ".join(f"{prefix}{name}" for name in missing) + ": not set"
    kind = "pattern" if "pattern" in schema and error.validator == "maxLength" else error.validator
    if kind == "additionalProperties":
        known = schema["properties"]
        unknown = sorted(name for name in instance if name not in known)
        line = f"unknown key {', '.join(map(_shown, unknown))}; known are {', '.join(known)}"
        line += _hint(unknown, known)
    elif kind == "type":
        quotes = "; put quotes around it" if "string" in schema["type"] else ""
        line = f"must be {_kind_of(schema)}" + quotes
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
