"""Test the tap on every Python of this machine, with the lowest and the newest dependencies.

`make test-matrix` runs it. On each Python, the wheel of `dist/` is installed as a user does it,
with pip into an empty venv, and run. Then the tests that need neither Meltano nor a destination
run twice: with the lowest versions of the tap's dependencies (requirements/lowest.txt), and with
the newest that `make lock` would pin today; on one Python, with the SDK's next minor version too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venvs" / "matrix"
UV = ROOT / ".venv" / "bin" / "uv"
NEXT_SDK = "singer-sdk>=0.55.0b7"
"""A pre-release of the highest minor version that pyproject.toml allows."""

DEPENDENCIES = ("singer-sdk", "requests", "urllib3", "pendulum")
_ASK = "import sys; print('%d.%d' % sys.version_info[:2])"


def supported() -> list[str]:
    """List the versions of Python that the package names, such as "3.10"."""
    classifiers = metadata("tap-balance").get_all("Classifier") or []
    return re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))


def version_of(python: str | Path) -> str:
    """Ask an interpreter for its version; empty if it does not run (pyenv's shims may not)."""
    try:
        done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def on_this_machine() -> dict[str, str]:
    """Find an interpreter of each supported version: on the PATH, or installed by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [*map(Path, os.get_exec_path()), *sorted(pyenv.glob("versions/*/bin"))]
    found: dict[str, str] = {}
    for version in supported():
        for folder in folders:
            python = folder / f"python{version}"
            if version not in found and version_of(python) == version:
                found[version] = str(python)
    return found


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it prints on stdout.

    Raises:
        RuntimeError: It failed; the message is the end of what it printed.
    """
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        printed = "\n".join(f"{done.stdout}{done.stderr}".splitlines()[-100:])
        msg = f"{' '.join(map(str, command))}\n{printed}"
        raise RuntimeError(msg)
    return done.stdout


def install_as_a_user(version: str, python: str, wheel: Path) -> str:
    """Install the wheel with pip into an empty venv, and run what it brings."""
    venv = VENVS / f"{version}-user"
    run(python, "-m", "venv", "--clear", venv)
    run(venv / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", wheel)
    tap = venv / "bin" / "tap-balance"
    # Elsewhere than in the repository, whose package would be found first.
    about = json.loads(run(tap, "--about", "--format=json", cwd=venv))
    assert version in about["supported_python_versions"], about
    catalog = json.loads(run(tap, "--discover", cwd=venv))
    assert [stream["tap_stream_id"] for stream in catalog["streams"]] == ["balance"], catalog
    (package,) = venv.glob("lib/python*/site-packages/tap_balance")
    compiled = {path.name.split(".")[0] for path in package.rglob("*.pyc")}
    assert compiled == {path.stem for path in package.rglob("*.py")}, "bytecode is missing"
    return "--about and --discover run, bytecode is there"


def run_the_tests(version: str, python: str, dependencies: str, newer: str) -> str:
    """Run the tests; return how many have passed, and with which versions.

    Args:
        version: Of Python.
        python: The interpreter.
        dependencies: "lowest", "newest" or "next SDK".
        newer: How old a newest one has to be, such as "7 days".
    """
    venv = VENVS / f"{version}-{dependencies}".replace(" ", "-")
    run(UV, "venv", "--quiet", "--clear", "--python", python, venv)
    install = (UV, "pip", "install", "--quiet", "--python", venv)
    if dependencies == "lowest":
        run(*install, "--require-hashes", "-r", "requirements/lowest.txt")
        run(*install, "--no-deps", "--no-build-isolation", "--editable", ".")
    else:
        groups = ("--group", "build", "--group", "test")
        recent = ("--exclude-newer", newer) if dependencies == "newest" else (NEXT_SDK,)
        run(*install, *recent, *groups, "--editable", ".")
    options = ["-q", "--tb=short", "--numprocesses=2", "-m", "not e2e"]
    if dependencies == "lowest":
        # The SDK's tests, as of 0.54.2, have fixtures that pytest 9.2 warns of.
        options += ["-W", "ignore:Class-scoped fixtures defined as instance methods"]
    printed = run(venv / "bin" / "python", "-m", "pytest", *options)
    passed = re.findall(r"\d+ passed", printed)[-1]
    ask = f"from importlib.metadata import version; print(*map(version, {DEPENDENCIES}))"
    versions = run(venv / "bin" / "python", "-c", ask).split()
    return f"{passed} ({', '.join(map(' '.join, zip(DEPENDENCIES, versions, strict=True)))})"


def main() -> int:
    """Go through all combinations, print a line for each, and fail if one of them has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", help="interpreters, instead of all on this machine")
    parser.add_argument("--exclude-newer", required=True, metavar="AGE", help="as in make lock")
    arguments = parser.parse_args()
    pythons = {version_of(name): name for name in arguments.pythons} or on_this_machine()
    if not pythons:
        sys.exit(f"no Python of these versions was found here: {', '.join(supported())}")
    if unknown := set(pythons) - set(supported()):
        sys.exit(f"not an interpreter of a supported version: {[pythons[key] for key in unknown]}")
    (wheel,) = (ROOT / "dist").glob("*.whl")
    failures = 0
    for version, python in pythons.items():
        parts = ["wheel", "lowest", "newest"]
        if version == list(pythons)[-1]:
            parts.append("next SDK")
        for part in parts:
            start = time.monotonic()
            try:
                if part == "wheel":
                    words = install_as_a_user(version, python, wheel)
                else:
                    words = run_the_tests(version, python, part, arguments.exclude_newer)
            except (AssertionError, RuntimeError) as error:
                failures += 1
                words = f"FAILED\n{error}\n"
            print(
                f"Python {version}, {part}: {words}, {time.monotonic() - start:.0f} s", flush=True
            )
    if missing := [version for version in supported() if version not in pythons]:
        print(f"Not tested here: Python {', '.join(missing)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
