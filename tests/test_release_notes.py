"""A release is only what tag, version and changelog agree on."""

from __future__ import annotations

import sys

import pytest
import release_notes
from release_notes import DisagreementError

PYPROJECT = """\
[build-system]
requires = [ "hatchling" ]

[project]
name = "tap-balance"
version = "1.2.0"

[tool.other]
version = "9.9.9"
"""
CHANGELOG = """\
# Changelog

The form is that of [Keep a Changelog](https://keepachangelog.com/en/1.1.0/).

## [Unreleased]

## [1.2.0] - 2026-11-30

### Added

- Something, see [the docs].

### Fixed

- Something else.

## [1.1.0] - 2026-10-01 [YANKED]

- The release before.

[unreleased]: https://example.org/compare/v1.2.0...HEAD
[1.2.0]: https://example.org/compare/v1.1.0...v1.2.0
"""
NOTES = """\
### Added

- Something, see [the docs].

### Fixed

- Something else."""


def test_the_notes_are_the_section_of_the_tag() -> None:
    assert release_notes.release_notes("v1.2.0", PYPROJECT, CHANGELOG) == NOTES


def test_a_first_release_ends_before_the_link_targets() -> None:
    changelog = "# Changelog\n\n## [1.2.0] - 2026-11-30\n\n- All.\n\n[1.2.0]: https://example.org\n"
    assert release_notes.release_notes("v1.2.0", PYPROJECT, changelog) == "- All."


@pytest.mark.parametrize(
    ("tag", "changed", "message"),
    [
        pytest.param(
            "v1.3.0",
            ("", ""),
            "the tag is v1.3.0, but pyproject.toml makes it v1.2.0",
            id="another tag",
        ),
        pytest.param(
            "v9.9.9",
            ('version = "1.2.0"', 'dynamic = [ "version" ]'),
            "pyproject.toml has no version under [project]",
            id="no version",
        ),
        pytest.param(
            "v1.2.0",
            ("## [1.2.0] - 2026-11-30", "## [1.2.1] - 2026-11-30"),
            "CHANGELOG.md needs the heading '## [1.2.0] - YYYY-MM-DD'; "
            "its newest heading is '## [1.2.1] - 2026-11-30'",
            id="another heading",
        ),
        pytest.param(
            "v1.2.0",
            ("## [Unreleased]\n", "## [Unreleased]\n\n- Forgotten.\n"),
            "CHANGELOG.md still has lines under [Unreleased]; move them to [1.2.0]",
            id="something unreleased",
        ),
        pytest.param(
            "v1.2.0",
            (NOTES, ""),
            "CHANGELOG.md says nothing about [1.2.0]",
            id="an empty section",
        ),
    ],
)
def test_a_disagreement_is_one_line(tag: str, changed: tuple[str, str], message: str) -> None:
    pyproject, changelog = (text.replace(*changed) for text in (PYPROJECT, CHANGELOG))
    with pytest.raises(DisagreementError) as caught:
        release_notes.release_notes(tag, pyproject, changelog)
    assert str(caught.value) == message


def test_the_command_fails_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["release_notes.py", "v0.0.0-never"])
    with pytest.raises(SystemExit, match=r"^v0\.0\.0-never cannot be released: the tag is "):
        release_notes.main()
