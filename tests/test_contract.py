"""What must not drift apart: the contract, the settings, and the files that repeat them."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from parts import ROOT
from settings_forms import as_meltano_declares

from tap_balance.config import SETTINGS
from tap_balance.streams import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping


def setting_names() -> list[str]:
    return list(SETTINGS["properties"])


@pytest.mark.parametrize("field", SCHEMA["properties"])
def test_every_field_has_a_description_a_unit_and_a_source(field: str) -> None:
    contract = SCHEMA["properties"][field]
    for keyword in ("description", "x-unit", "x-source"):
        assert contract[keyword]


def _plugin() -> Mapping[str, Any]:
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    plugin: Mapping[str, Any] = project["plugins"]["extractors"][0]
    return plugin


def test_meltano_yml_declares_every_setting_alike() -> None:
    declared = {setting["name"]: setting for setting in _plugin()["settings"]}
    assert list(declared) == setting_names(), "meltano.yml: declare the tap's settings, in order"
    # Labels and descriptions are in hub/tap-balance.yml only.
    forms = {
        name: {"name": name}
        | {key: form[key] for key in form if key not in {"label", "description"}}
        for name, form in as_meltano_declares().items()
    }
    assert declared == forms, "meltano.yml: let the setting follow schemas/settings.json"


def test_env_example_names_every_setting_and_no_other() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    variables = re.findall(r"^#? ?TAP_BALANCE_([A-Z_]+)=", example, re.MULTILINE)
    assert [name.lower() for name in variables] == setting_names(), (
        ".env.example: add or remove the setting's line, in the order of schemas/settings.json"
    )


def test_no_module_imports_one_that_imports_it_not_even_for_a_type() -> None:
    imported: dict[str, set[str]] = {}
    for path in (ROOT / "tap_balance").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"from tap_balance\.(\w+) import|from tap_balance import (\w+)", text)
        imported[path.stem] = {first or second for first, second in names}
    assert imported["tap"] >= {"config", "accounts", "streams"}
    TopologicalSorter(imported).prepare()  # raises CycleError
