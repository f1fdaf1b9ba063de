"""The container's recipe: what can be said of it without an engine (see docs/container.md)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from parts import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
IGNORED = [
    line
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
LET_IN = {line.removeprefix("!") for line in IGNORED if line.startswith("!")}


def all_of(instruction: str) -> list[str]:
    return [line.split(None, 1)[1] for line in LINES if line.startswith(f"{instruction} ")]


COPIED = {
    path for line in all_of("COPY") if not line.startswith("--from=") for path in line.split()[:-1]
}


def test_it_copies_what_is_there_and_let_in_and_nothing_else_is() -> None:
    assert IGNORED[0] == "*"
    assert COPIED == LET_IN
    for path in COPIED:
        assert (ROOT / path).exists()


def test_the_wheel_can_be_built_from_what_it_copies(tmp_path: Path) -> None:
    for path in COPIED:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    done = subprocess.run(build, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("dist/*.whl"))) == 1


def test_it_runs_the_tap_and_not_as_root_on_a_slim_image_of_a_supported_python() -> None:
    # Not by an ARG: Dependabot does not look into those.
    (base,) = {line.split()[0] for line in all_of("FROM")}
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", base)
    assert version
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"Programming Language :: Python :: {version[1]}"' in project
    final = LINES[len(LINES) - LINES[::-1].index(f"FROM {base}") :]
    assert 'ENTRYPOINT ["tap-balance"]' in final
    (user,) = [line.split()[1] for line in final if line.startswith("USER ")]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_image_for_airflow_copies_what_is_there_and_let_in_and_nothing_else_is() -> None:
    recipe = ROOT / "orchestrate" / "Dockerfile"
    lines = recipe.read_text(encoding="utf-8").splitlines()
    copied = {
        path for line in lines if line.startswith("COPY --chown") for path in line.split()[2:-1]
    }
    ignore = recipe.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    for path in copied:
        assert (ROOT / path).exists()
    pins = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r"^FROM apache/airflow:([\d.]+)-", "\n".join(lines), re.MULTILINE)
    assert f'"apache-airflow=={version}"' in pins


def test_it_installs_only_what_is_locked() -> None:
    for line in all_of("RUN"):
        for command in line.split("&&"):
            if " install " in command:
                assert re.search(r"--require-hashes -r requirements/\w+\.txt|--no-deps", command)
