"""The settings as environment variables hold them: text, one variable for each setting."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tap_balance import strict_json
from tap_balance.errors import SettingsError
from tap_balance.validation import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TRUE = {"true", "1", "yes", "on"}


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
