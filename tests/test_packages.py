"""The sdist and the wheel: the same bytes from the same source, and what is in them.

`make test-matrix` installs the wheel on every Python of the machine.
"""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from parts import ROOT

from tap_balance.streams import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

MODULES = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tap_balance/*.py")}
SCHEMAS = {"schemas/balance.json", "schemas/settings.json"}
SOURCE = MODULES | {"tap_balance/py.typed", *SCHEMAS}
PACKAGE = MODULES | {"tap_balance/py.typed", *(f"tap_balance/{name}" for name in SCHEMAS)}
NAME = f"tap_balance-{version('tap-balance')}"
INFO = f"{NAME}.dist-info/"
WHEEL, SDIST = f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"
SOURCES = ("CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", ".gitignore")


def build(source: Path, *options: str, umask: int = 0o022, **environment: str) -> Path:
    """Build sdist and wheel, as `make dist` does; return the folder that they are in."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *options],
        cwd=source,
        check=True,
        capture_output=True,
        env=os.environ | environment,
        umask=umask,
    )
    return source / "dist"


def copy_of_the_source(folder: Path, umask: int, mtime: int) -> Path:
    """Copy what a checkout has, with other times and permissions."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("schemas", "tap_balance"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        os.utime(path, (mtime, mtime))
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_of_the_source(tmp_path_factory.mktemp("source"), 0o022, 1_700_000_000)
    return build(source, TZ="UTC", PYTHONHASHSEED="1")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_builds_give_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    source = copy_of_the_source(tmp_path / "elsewhere", 0o077, 1_600_000_000)
    again = build(source, umask=0o077, TZ="Asia/Tokyo", PYTHONHASHSEED="2")
    assert set(files_of(packages)) == {WHEEL, SDIST}
    assert files_of(again) == files_of(packages)


def test_the_sdist_builds_the_same_wheel(packages: Path, tmp_path: Path) -> None:
    with tarfile.open(packages / SDIST) as sdist:
        if hasattr(tarfile, "data_filter"):  # the 3.11.2 of Debian 12 has none
            sdist.extraction_filter = tarfile.data_filter
        sdist.extractall(tmp_path)  # of our own making
    built = build(tmp_path / NAME, "--target", "wheel")
    ((name, wheel),) = files_of(built).items()
    assert wheel == (packages / name).read_bytes()


def test_the_wheel_holds_the_package_and_nothing_else(packages: Path) -> None:
    with zipfile.ZipFile(packages / WHEEL) as wheel:
        names = set(wheel.namelist())
        assert json.loads(wheel.read("tap_balance/schemas/balance.json")) == SCHEMA
        commands = wheel.read(f"{INFO}entry_points.txt").decode().split()
        metadata = email.message_from_bytes(wheel.read(f"{INFO}METADATA"))
    about = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    assert names == PACKAGE | {INFO + name for name in about}
    assert [word for word in commands if word.startswith("tap-")] == [
        "tap-balance",
        "tap-balance-sandbox",
    ]
    assert metadata["License-Expression"] == "Apache-2.0"
    required = metadata.get_all("Requires-Dist", [])
    names_required = [requirement.split("<")[0] for requirement in required]
    assert names_required == ["pendulum", "requests", "singer-sdk", "urllib3"]


def test_the_sdist_holds_what_the_wheel_is_built_from_and_nothing_else(packages: Path) -> None:
    with tarfile.open(packages / SDIST) as sdist:
        names = {name.removeprefix(f"{NAME}/") for name in sdist.getnames()}
    # hatchling adds the .gitignore, which a build from the sdist heeds too.
    assert names == SOURCE | set(SOURCES) | {"PKG-INFO"}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("plugin", "package"),
    [
        ("extractors/tap-balance", "singer_sdk"),
        ("loaders/target-postgres", "target_postgres"),
        ("utilities/dbt-postgres", "dbt"),
    ],
)
def test_meltano_compiles_what_it_installs(meltano: None, plugin: str, package: str) -> None:
    """uv, which Meltano installs with, does so only with an option: `--compile` in `pip_url`."""
    assert meltano is None
    (installed,) = (ROOT / ".meltano" / plugin / "venv" / "lib").glob(
        f"python*/site-packages/{package}"
    )
    sources = list(installed.rglob("*.py"))
    compiled = {path.name.split(".")[0] for path in installed.rglob("*.pyc")}
    assert sources
    assert {path.stem for path in sources} == compiled
