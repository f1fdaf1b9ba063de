"""The declared settings in the forms of the files that repeat them."""

from __future__ import annotations

from typing import Any

from tap_balance.config import SETTINGS

# Meltano 4.4.1 has a kind for fractions, `decimal`, and fails on one from the environment.
_KINDS = {"string": "string", "integer": "integer", "number": "integer", "array": "array"}


def as_meltano_declares() -> dict[str, dict[str, Any]]:
    """Name each setting with what meltano.yml and the hub's definition have to say of it.

    The default of `account` is left out: given as a value, it would be set beside `accounts`,
    which the tap refuses.
    """
    declared = {}
    for name, setting in SETTINGS["properties"].items():
        kind = next(_KINDS[kind] for kind in setting["type"] if kind in _KINDS)
        form = {
            "kind": "options" if "enum" in setting else kind,
            "label": setting["title"],
            "description": setting["description"],
        }
        if "default" in setting and name != "account":
            form["value"] = setting["default"]
        if setting.get("secret"):
            form["sensitive"] = True
        if "enum" in setting:
            values = [value for value in setting["enum"] if value is not None]
            form["options"] = [{"label": value.upper(), "value": value} for value in values]
        declared[name] = form
    return declared
