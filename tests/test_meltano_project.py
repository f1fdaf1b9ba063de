"""meltano.yml and plugins/: what a project made of them is."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import meltano_project
import pytest
import yaml
from lock_files import PLUGINS, definition_of
from parts import MELTANO, PATIENCE, QUIET, ROOT

if TYPE_CHECKING:
    from pathlib import Path


PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
LOCKS = sorted(PLUGINS.rglob("*.lock"))


def test_meltano_yml_fits_on_two_screens() -> None:
    assert len((ROOT / "meltano.yml").read_text(encoding="utf-8").splitlines()) <= 130


def test_every_plugin_is_defined_and_every_lock_file_is_of_a_plugin() -> None:
    locked = {
        path.relative_to(PLUGINS).as_posix(): path.read_text(encoding="utf-8") for path in LOCKS
    }
    named = {
        f"{kind}/{plugin['name']}--{plugin['variant']}.lock"
        for kind, plugins in PROJECT["plugins"].items()
        for plugin in plugins
        if "namespace" not in plugin
    }
    assert set(locked) == named


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_file_is_of_the_plugin_that_its_path_names(path: Path) -> None:
    locked = json.loads(path.read_text(encoding="utf-8"))
    assert path.parent.name == locked["plugin_type"]
    assert path.stem == f"{locked['name']}--{locked['variant']}"
    (plugin,) = [
        one for one in PROJECT["plugins"][path.parent.name] if one["name"] == locked["name"]
    ]
    assert set(locked["pip_url"].split()) == {
        word.split("=")[0].rstrip("~") for word in plugin["pip_url"].split(" --")[0].split()
    }
    settings = [setting["name"] for setting in locked["settings"]]
    assert len(settings) == len(set(settings))
    assert set(plugin.get("config", {})) <= set(settings)
    assert definition_of(path.parent.name, plugin)["executable"]


def run_meltano(project: Path, *arguments: str, **environment: str) -> str:
    """Run Meltano in a project and return what it prints on stdout."""
    done = subprocess.run(
        [MELTANO, *arguments],
        cwd=project,
        env=os.environ | QUIET | {"MELTANO_ENVIRONMENT": "prod"} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.e2e
@pytest.mark.usefixtures("meltano")
def test_a_plugin_that_inherits_from_the_tap_loads_into_the_same_schema(tmp_path: Path) -> None:
    """Meltano's own default is a schema per plugin (meltano/meltano#9239)."""
    project = meltano_project.make(tmp_path / "project")
    described = yaml.safe_load((project / "meltano.yml").read_text(encoding="utf-8"))
    second = {"name": "tap-balance--eu", "inherit_from": "tap-balance"}
    described["plugins"]["extractors"].append(second)
    (project / "meltano.yml").write_text(yaml.safe_dump(described), encoding="utf-8")
    listed = run_meltano(project, "config", "list", "--extras", "tap-balance--eu")
    (line,) = [line for line in listed.splitlines() if line.startswith("_load_schema")]
    assert "current value: 'tap_balance' (inherited" in line
