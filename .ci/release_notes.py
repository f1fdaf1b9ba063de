"""Print what the changelog says about a release, if tag, version and changelog agree on it.

`release_notes.py TAG`, anywhere in a clone. It needs the standard library only, because the release
runs it before it installs anything.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATE = r"\d{4}-\d{2}-\d{2}"


class DisagreementError(Exception):
    """The three do not speak of one release; the message is one line that says where."""


def release_notes(tag: str, pyproject: str, changelog: str) -> str:
    """Return the changelog's section for a tag.

    Args:
        tag: What is released, e.g. `v1.2.3`.
        pyproject: The text of `pyproject.toml`.
        changelog: The text of `CHANGELOG.md`, in the form of https://keepachangelog.com/en/1.1.0/.

    Raises:
        DisagreementError: Tag, version and newest heading differ, or the section is not finished.
    """
    # No tomllib before Python 3.11.
    project = re.search(r"^\[project\]$(.*?)(?=^\[|\Z)", pyproject, re.MULTILINE | re.DOTALL)
    version = re.search(r'^version = "([^"]+)"$', project[1] if project else "", re.MULTILINE)
    if not version:
        msg = "pyproject.toml has no version under [project]"
        raise DisagreementError(msg)
    if tag != f"v{version[1]}":
        msg = f"the tag is {tag}, but pyproject.toml makes it v{version[1]}"
        raise DisagreementError(msg)
    # A heading and its text, again and again, behind what comes before the first.
    _, *parts = re.split(r"^## (.*)$", changelog, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], map(_text, parts[1::2]), strict=True))
    if sections.pop("[Unreleased]", ""):
        msg = f"CHANGELOG.md still has lines under [Unreleased]; move them to [{version[1]}]"
        raise DisagreementError(msg)
    heading, text = next(iter(sections.items()), ("", ""))
    if not re.fullmatch(rf"\[{re.escape(version[1])}\] - {DATE}", heading):
        newest = f"its newest heading is '## {heading}'" if heading else "it has none"
        msg = f"CHANGELOG.md needs the heading '## [{version[1]}] - YYYY-MM-DD'; {newest}"
        raise DisagreementError(msg)
    if not text:
        msg = f"CHANGELOG.md says nothing about [{version[1]}]"
        raise DisagreementError(msg)
    return text


def _text(section: str) -> str:
    """Leave out the link targets at the end of the file, which belong to no section."""
    return re.sub(r"^\[[^]]+\]: \S+$", "", section, flags=re.MULTILINE).strip()


def main() -> None:
    """Print the notes, or one line on stderr and status 1."""
    try:
        (tag,) = sys.argv[1:]
    except ValueError:
        sys.exit("usage: python3 .ci/release_notes.py vX.Y.Z")
    texts = [
        (ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CHANGELOG.md")
    ]
    try:
        notes = release_notes(tag, *texts)
    except DisagreementError as disagreement:
        sys.exit(f"{tag} cannot be released: {disagreement}")
    sys.stdout.write(f"{notes}\n")


if __name__ == "__main__":
    main()
