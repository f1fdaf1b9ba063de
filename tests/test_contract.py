"""What must not drift apart: the contract, the settings, and the files that repeat them."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hatchling.build import build_wheel
from parts import ROOT

from tap_balance.settings import SETTINGS
from tap_balance.streams import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Meltano has a kind for fractions and fails on it; see the comment in meltano.yml.
KINDS = {"string": "string", "integer": "integer", "number": "integer", "array": "array"}


def setting_names() -> list[str]:
    return list(SETTINGS["properties"])


@pytest.mark.parametrize("field", SCHEMA["properties"])
def test_every_field_has_a_description_a_unit_and_a_source(field: str) -> None:
    contract = SCHEMA["properties"][field]
    for keyword in ("description", "x-unit", "x-source"):
        assert contract[keyword]


def test_the_wheel_holds_the_contract_and_no_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        names = wheel.namelist()
        shipped = json.loads(wheel.read("tap_balance/schemas/balance.json"))
    assert shipped == SCHEMA
    assert "tap_balance/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"tap_balance", "tap_balance-0.1.0.dist-info"}


def _plugin() -> Mapping[str, Any]:
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    plugin: Mapping[str, Any] = project["plugins"]["extractors"][0]
    return plugin


def test_meltano_yml_declares_every_setting_alike() -> None:
    declared = {setting["name"]: setting for setting in _plugin()["settings"]}
    assert list(declared) == setting_names()
    for name, setting in SETTINGS["properties"].items():
        kind = next(KINDS[kind] for kind in setting["type"] if kind in KINDS)
        assert declared[name]["kind"] == ("options" if "enum" in setting else kind)
        assert declared[name].get("sensitive", False) == setting.get("secret", False)
        assert declared[name]["description"] == setting["description"]


def test_env_example_and_the_readme_name_every_setting_and_no_other() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    variables = re.findall(r"^#? ?TAP_BALANCE_([A-Z_]+)=", example, re.MULTILINE)
    assert [name.lower() for name in variables] == setting_names()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("## Settings", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == setting_names()
    record = readme.split("## The record", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", record, re.MULTILINE) == list(SCHEMA["properties"])


def test_the_readme_names_every_constant_of_the_dag_with_its_default() -> None:
    dag = (ROOT / "orchestrate" / "dags" / "tap_balance.py").read_text(encoding="utf-8")
    constants = dict(re.findall(r'os\.environ\.get\("(TAP_BALANCE_DAG_\w+)", "([^"]+)"\)', dag))
    assert len(constants) == dag.count("os.environ.get(")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    documented = re.findall(
        r"^\| `(TAP_BALANCE_DAG_\w+)` \| `?([^|`]+?)`? \|", readme, re.MULTILINE
    )
    assert dict(documented) == constants
