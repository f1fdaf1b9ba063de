"""What the workflows promise, where no linter knows the rule."""

from __future__ import annotations

import re
from typing import Any

import yaml
from parts import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PIN = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# What a hook's `files` is called in the Makefile, where a shell finds them.
GLOBS = {r"^\.github/workflows/[^/]*\.yml$": " .github/workflows/*.yml"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def jobs() -> dict[str, dict[str, Any]]:
    return {
        f"{path.stem}/{name}": job
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items()
    }


def test_every_python_that_is_promised_is_tested() -> None:
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))
    assert jobs()["ci/dependencies"]["strategy"]["matrix"]["python"] == promised
    assert jobs()["ci/test"]["strategy"]["matrix"]["python"] == promised
    assert f'requires-python = ">={promised[0]}"' in read("pyproject.toml")


def test_a_fresh_machine_has_the_same_packages_in_ci_as_in_make_test_fresh() -> None:
    packages = re.search(r"^PACKAGES=(.*)", read("tests/support/fresh.sh"), re.MULTILINE)
    assert packages
    names = packages[1].replace(",", " ")
    (install, _, run) = jobs()["ci/fresh"]["steps"]
    assert f"--no-install-recommends {names}\n" in install["run"]
    assert f"`{names}`" in read("CONTRIBUTING.md")
    commands = re.search(r"^test-fresh:.*\n\t.*\(SUITE\) (.*)", read("Makefile"), re.MULTILINE)
    assert commands
    assert re.findall("make [a-z]+", run["run"]) == commands[1].strip("'").split("' '")


def test_a_program_that_a_test_requires_is_listed_and_installed_in_ci() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests/support").glob("*.py")]
    packages = re.findall(r'require_program\([^)]*package="([^"]+)"', "\n".join(sources))
    assert "pgbouncer" in packages
    commands = " ".join(step.get("run", "") for step in jobs()["ci/test"]["steps"]).split()
    for package in packages:
        assert package in commands
        assert f"the package `{package}` |" in read("CONTRIBUTING.md")


def test_a_release_is_what_ci_has_built_and_nothing_is_published_that_was_not_attested() -> None:
    steps = ("agree", "ci", "attest", "publish", "github-release")
    needs = {step: jobs()[f"release/{step}"].get("needs") for step in steps}
    assert needs == dict(zip(steps, (None, *steps), strict=False))
    artifacts = {
        job: step["with"]["name"]
        for job, details in jobs().items()
        for step in details.get("steps", [])
        if "artifact@" in step.get("uses", "") and not job.startswith("lock/")
    }
    passed = ("ci/build", "release/attest", "release/publish", "release/github-release")
    assert artifacts == dict.fromkeys(passed, "dist")


def test_a_release_is_built_with_what_pyproject_asks_for() -> None:
    project = read("pyproject.toml")
    required = re.search(r'^requires = \[ ("hatchling[^"]*") \]$', project, re.MULTILINE)
    assert required
    assert re.search(rf"^build = \[.*{re.escape(required[1])}.*\]$", project, re.MULTILINE)


def test_the_hooks_are_the_lines_of_make_lint() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert recipe
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    commands = [
        hook["entry"] + GLOBS[hook["files"]] if "files" in hook else hook["entry"]
        for hook in repo["hooks"]
    ]
    assert commands == [line.strip() for line in recipe[1].splitlines()]


def test_every_make_target_of_a_workflow_exists() -> None:
    steps = [step for job in jobs().values() for step in job.get("steps", [])]
    used = {name for step in steps for name in re.findall(r"make ([\w-]+)", step.get("run", ""))}
    assert "check" in used
    assert used - set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)) == set()


def test_only_these_jobs_may_write() -> None:
    assert {
        job: rights
        for job, details in jobs().items()
        if (rights := {k for k, right in details["permissions"].items() if right != "read"})
    } == {
        "lock/pull-request": {"contents", "pull-requests"},
        "release/attest": {"attestations", "id-token"},
        "release/publish": {"id-token"},
        "release/github-release": {"contents"},
    }


def test_no_workflow_gives_all_its_jobs_a_permission_or_knows_a_secret() -> None:
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)["permissions"] == {}, path.name
        assert "secrets" not in re.sub(r"#.*", "", text), path.name


def test_every_action_is_pinned_by_hash_with_its_version_and_only_once() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    uses = set(re.findall(r"uses: (?!\$/)(.*)", text))
    assert uses
    assert [pin for pin in uses if not PIN.fullmatch(pin)] == []
    assert len({pin.split("@")[0] for pin in uses}) == len(uses)
