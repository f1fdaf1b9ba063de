"""What the pages repeat agrees with its source: tables, examples, queries."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pages import README, doc, row_cells
from parts import ROOT
from targets import Load
from test_destinations import EXPECTED

from tap_balance.config import SETTINGS
from tap_balance.streams import SCHEMA, BalanceStream

PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
LOADERS = {plugin["name"]: plugin for plugin in PROJECT["plugins"]["loaders"]}
ANY_LOAD = Load({}, "2026-01-31T10:00:00Z")


def test_the_settings_table_has_every_setting_with_its_default() -> None:
    table = {row[0].strip("`"): row[1].strip("`") for row in row_cells(README.section("Settings"))}
    assert table.pop("base_url") == "by product"
    declared = {name: str(one.get("default", "")) for name, one in SETTINGS["properties"].items()}
    assert declared.pop("base_url") == ""
    assert list(table.items()) == list(declared.items()), (
        "README.md, Settings: add a row for the setting, as schemas/settings.json has it"
    )


def stated_type(field: str) -> str:
    """The type of a field, as the README's table writes it."""
    contract = SCHEMA["properties"][field]
    if contract.get("format") == "x-singer.decimal":
        return f"decimal ({contract['precision']}, {contract['scale']})"
    if contract.get("format") == "date-time":
        return "date-time, UTC"
    kinds = contract["type"]
    kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
    return f"{kind}, primary key" if (field,) == BalanceStream.primary_keys else str(kind)


def test_the_records_table_has_every_field_with_its_type() -> None:
    rows = row_cells(README.section("The record"))
    table = [(row[0].strip("`"), row[1]) for row in rows]
    assert table == [(field, stated_type(field)) for field in SCHEMA["properties"]], (
        "README.md, The record: add a row for the field, with its type, as balance.json has them"
    )


def test_the_table_of_the_dags_has_every_constant_with_its_default() -> None:
    path = ROOT / "orchestrate" / "dags" / "tap_balance_airflow" / "settings.py"
    settings = path.read_text(encoding="utf-8")
    defaults = re.findall(r'^([A-Z_]+) = "?([^"({\n]+)"?(?:  #.*)?$', settings, re.MULTILINE)
    rows = row_cells(doc("airflow").section("What can be set"))
    assert [(row[0].strip("`"), row[1].strip("`")) for row in rows] == defaults, (
        "docs/airflow.md, What can be set: add a row for the constant, with its default"
    )


def test_the_architecture_page_names_every_module_and_no_other() -> None:
    page = doc("architecture")
    modules = {path.name for path in (ROOT / "tap_balance").glob("*.py")} - {"__init__.py"}
    rows = row_cells(page.section("The modules of `tap_balance/`"))
    named = [row[0].strip("`") for row in rows]
    assert len(named) == len(set(named)), "docs/architecture.md: remove the second line of a module"
    assert modules - set(named) == set(), "docs/architecture.md: add a line for the module"
    assert set(named) - modules == set(), "docs/architecture.md: remove the line of what is gone"
    files = [*(ROOT / "transform").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    mentioned = set(re.findall(r"\b\w+\.py\b", page.text)) - {path.name for path in files}
    assert mentioned - modules == set(), "docs/architecture.md: it names a module that is gone"


DESTINATIONS = ["postgres", "snowflake", "jsonl", "csv", "pipelinewise-postgres"]
WORDS = {
    "account names": (
        "names",
        {"newline and tab become `\\n` and `\\t`": "newline as \\n, tab as \\t"},
    ),
    "no currency": ("no currency", {}),
    "one interval loaded twice": (
        "one interval twice",
        {"one row, the newer": "1 row", "two lines": "2 rows", "two lines, in two files": "2 rows"},
    ),
    "killed half-way, run again": (
        "killed, run again",
        {"each row once": "each once", "what was written is there twice": "twice: 5 of 10"},
    ),
    "two loads at once": (
        "two loads at once",
        {"each row once": "each once", "twice": "twice: 3 of 3"},
    ),
    "a table with a column less": (
        "table lacks a column",
        {"column added, rows kept": "added, rows kept", "rows kept": "added, rows kept"},
    ),
    "`load_method: append-only`": (
        "append-only, twice",
        {"ignored by 0.8.1": "1 row", "a row per run": "2 rows", "its only way": "2 rows"},
    ),
    "`load_method: overwrite`": (
        "overwrite",
        {
            "ignored by 0.8.1": "history kept",
            "destroys the history": "history lost",
            "its default: destroys the history": "history lost",
        },
    ),
}
"""Row of docs/destinations.md -> check of test_destinations.py, the page's words -> the check's."""


def expected(check: str) -> list[str]:
    found = EXPECTED[check]
    return [found.get(destination, found.get("", "")) for destination in DESTINATIONS]


def test_the_table_of_the_destinations_says_what_their_tests_expect() -> None:
    rows = {
        row[0]: [cell.replace("**", "") for cell in row[1:]]
        for row in row_cells(doc("destinations").text)
    }
    types = list(rows)[:4]
    columns = zip(*(rows.pop(label) for label in types), strict=True)
    found = [" ".join(cell.removesuffix(", in UTC") for cell in column) for column in columns]
    assert found == expected("types")
    assert rows.pop("amounts, instants, any session time zone") == expected("amounts")
    for label, cells in rows.items():
        check, words = WORDS[label]
        assert [words.get(cell, cell) for cell in cells] == expected(check), label
    assert rows.keys() == WORDS.keys()


def test_the_variables_and_the_statuses_are_dbts() -> None:
    page = doc("alerts")
    marts = ROOT / "transform/models/marts"
    project = yaml.safe_load((ROOT / "transform/dbt_project.yml").read_text(encoding="utf-8"))
    for name in ("critical_days", "low_days"):
        assert f"`{name}` ({project['vars'][name]})" in page.text
    for name, default, _ in row_cells(page.section("What can be set")):
        variable = name.strip("`")
        assert yaml.safe_load(default) == project["vars"][variable], (
            f"docs/alerts.md, What can be set: correct the default of {variable}"
        )
    statuses = [row[0].strip("`") for row in row_cells(page.text.split("\n## ")[0])]
    blocks = (marts / "_tap_balance__marts.md").read_text(encoding="utf-8")
    described = blocks.split("{% docs tap_balance__status %}")[1].split("{% enddocs %}")[0]
    assert sorted(statuses) == sorted(set(re.findall(r"`([a-z]+)`", described)))
