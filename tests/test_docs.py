"""What the pages say is there: links, commands, paths, variables and pinned versions.

What they repeat is in test_docs_agree.py, the messages of docs/troubleshooting.md in
test_troubleshooting.py; test_docs_blocks.py runs their blocks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from check_snowflake import ARGUMENTS
from click.testing import CliRunner
from lock_files import definition_of
from pages import DOCS, PAGES, README, Page
from parts import QUIET, ROOT, SUPPORT

from tap_balance import sandbox
from tap_balance.config import SETTINGS
from tap_balance.tap import TapBalance

if TYPE_CHECKING:
    from collections.abc import Callable

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
PLUGINS = {
    plugin["name"]: definition_of(kind, plugin)
    for kind, plugins in PROJECT["plugins"].items()
    for plugin in plugins
}
MADE = (
    "output/notify.json",
    "output/report.html",
    "output/balance",
    "output/fresh-",
    "demo-output/",
    "transform/target",
    ".meltano/",
    ".venvs/",
)
"""Paths that running something makes."""

every_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def test_the_readme_stays_short() -> None:
    assert len(README.text.splitlines()) < 150


@every_page
def test_every_link_leads_somewhere(page: Page) -> None:
    for link in page.links:
        if "://" in link:
            assert link.startswith("https://")
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in Page(target).anchors, link


def linked(page: Page) -> set[Page]:
    """The pages that a page links to."""
    paths = [(page.path.parent / link.partition("#")[0]).resolve() for link in page.links]
    return {Page(path) for path in paths if path.suffix == ".md"}


def test_the_readme_links_to_every_page_in_docs_and_leads_to_all_others() -> None:
    assert len(DOCS) > 9
    assert set(DOCS) <= linked(README)
    reached = {README}
    while new := {target for page in reached for target in linked(page)} - reached:
        reached |= new
    assert set(PAGES) <= reached


def commands(name: str) -> list[tuple[str, list[str]]]:
    """The arguments that the pages give a command, each with the page's name."""
    return [(page.name, words[1:]) for page in PAGES for words in page.commands if words[0] == name]


def test_every_make_target_is_in_the_makefile() -> None:
    rules = re.findall(r"^([^\s#:=][^:=\n]*):(?!=)", MAKEFILE, re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    used = commands("make")
    assert len(used) > 20
    for page, arguments in used:
        assert {word for word in arguments if "=" not in word} <= targets, page


def tap_help() -> str:
    return CliRunner().invoke(TapBalance.cli, ["--help"]).output


def sandbox_help() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        sandbox.main(["--help"])
    return printed.getvalue()


@pytest.mark.parametrize(
    ("name", "read_help"), [("tap-balance", tap_help), ("tap-balance-sandbox", sandbox_help)]
)
def test_every_option_is_in_the_commands_help(name: str, read_help: Callable[[], str]) -> None:
    known = set(re.findall(r"--[a-z-]+", read_help()))
    assert "--help" in known
    used = commands(name)
    assert used
    for page, arguments in used:
        options = {word.split("=")[0] for word in arguments if word.startswith("-")}
        assert options <= known, page


def test_what_meltano_is_told_to_run_is_in_meltano_yml() -> None:
    used = commands("meltano")
    assert len(used) > 10
    for page, arguments in used:
        for option in arguments:
            if option.startswith("--environment="):
                assert option.split("=")[1] in {each["name"] for each in PROJECT["environments"]}
        words = [word for word in arguments if not word.startswith("--")]
        if words[:1] == ["run"]:
            for block in words[1:]:
                plugin, _, command = block.partition(":")
                assert plugin in PLUGINS, page
                assert not command or command in PLUGINS[plugin]["commands"], page
        elif words[:2] == ["schedule", "run"]:
            assert words[2] in {each["name"] for each in PROJECT["schedules"]}, page
        elif words[:1] in (["add"], ["invoke"]):
            assert words[1] in PLUGINS, page


@pytest.mark.e2e
@pytest.mark.usefixtures("meltano")
def test_every_command_line_and_variable_of_meltano_is_known_to_it() -> None:
    done = subprocess.run(
        [ROOT / ".venvs" / "meltano" / "bin" / "python", SUPPORT / "meltano_cli.py"],
        input=json.dumps([arguments for _, arguments in commands("meltano")]),
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | QUIET,
    )
    known = json.loads(done.stdout)
    assert known["problems"] == []
    used = {name for page in PAGES for name in re.findall(r"\bMELTANO_[A-Z_]+\b", page.text)}
    assert used >= {"MELTANO_DATABASE_URI", "MELTANO_SYS_DIR_ROOT"}
    assert used <= set(known["variables"])


NO_PATHS = {
    *("1/4", "i/n", "OWNER/REPOSITORY", "packages.yml"),
    ".github/workflows/balance.yml",  # in a repository of the reader's
}


def paths_in(page: Page) -> set[str]:
    """What looks like a path of this repository, in code spans and in commands."""
    top = {path.name for path in ROOT.iterdir()} - {".venvs", ".meltano", ".env"}
    spans = {word for span in page.spans for word in span.split()}
    in_commands = {word for words in page.commands for word in words[1:]}
    found = {word for word in spans if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", word)}
    for word in spans | in_commands:
        first, slash, _ = word.partition("/")
        known = slash and first in top
        if (known or re.fullmatch(r"[\w-]+\.(md|toml|yml)", word)) and "<" not in word:
            found.add(word)
    return found - NO_PATHS


@every_page
def test_every_path_is_there(page: Page) -> None:
    beside = (
        "",
        "tap_balance",
        "tests",
        "tests/shop_analytics",
        "tests/support",
        ".github/workflows",
    )
    folders = (page.path.parent, *(ROOT / folder for folder in beside))
    for path in paths_in(page):
        found = any((folder / path).exists() for folder in folders)
        assert found or path.startswith(MADE), path


def declared_variables() -> set[str]:
    """The environment variables that something here reads."""
    names = {f"TAP_BALANCE_{name.upper()}" for name in SETTINGS["properties"]} | set(ARGUMENTS)
    documented = [
        plugin
        for page in DOCS
        for language, text in page.blocks
        if language == "yaml" and "loaders" in text
        for plugin in yaml.safe_load(text)["plugins"]["loaders"]
    ]
    for plugin in [*PLUGINS.values(), *documented]:
        prefix = plugin["name"].upper().replace("-", "_")
        names |= {f"{prefix}_{one['name'].upper()}" for one in plugin.get("settings", [])}
    sources = [ROOT / "tap_balance" / "cli.py", *(ROOT / "orchestrate" / "dags").rglob("*.py")]
    for path in (ROOT / "transform").glob("**/*.*"):
        # dbt leaves folders behind whose names end like a file's.
        made = path.relative_to(ROOT / "transform").parts[0] in {"target", "logs"}
        if path.suffix in {".py", ".yml", ".sql"} and not made:
            sources.append(path)
    for path in sources:
        text = path.read_text(encoding="utf-8")
        names |= set(re.findall(r"""["']([A-Z][A-Z0-9_]+)["']""", text))
    return names


@pytest.mark.parametrize("page", [*PAGES, Page(ROOT / ".env.example")], ids=lambda page: page.name)
def test_every_environment_variable_is_read_somewhere(page: Page) -> None:
    found = re.findall(r"\b(?:TAP_BALANCE|TARGET|DBT|SNOWFLAKE)_[A-Z0-9_]*[A-Z0-9]\b", page.text)
    assert set(found) <= declared_variables()


@every_page
def test_every_pinned_version_is_the_one_that_is_tested(page: Page) -> None:
    pins = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, version in re.findall(r"([a-z][\w-]+)==([\d.]+)", page.text):
        assert re.search(rf'"{name}(\[\w+\])?=={re.escape(version)}"', pins), name
    for name, version in re.findall(
        r"\b(target-[a-z]+|Meltano|Airflow) (\d+\.\d+\.\d+)", page.text
    ):
        assert re.search(rf'{name.lower()}(\[\w+\])?=={re.escape(version)}"', pins), name
