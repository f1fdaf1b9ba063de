"""The pages that people read: their links, headings, code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from parts import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")
COMMANDS = ("make", "meltano", "tap-balance", "tap-balance-sandbox")
"""The commands whose arguments are checked."""


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """The language and the text of each fenced block."""
        return [(m["language"], textwrap.dedent(m["text"])) for m in BLOCK.finditer(self.text)]

    @cached_property
    def prose(self) -> str:
        """The text without the fenced blocks."""
        return BLOCK.sub("", self.text)

    @cached_property
    def spans(self) -> list[str]:
        """What stands between backticks."""
        return [" ".join(span[1].split()) for span in _SPAN.findall(self.prose)]

    @cached_property
    def links(self) -> list[str]:
        return _LINK.findall(_SPAN.sub("", self.prose))

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors that GitHub gives the headings."""
        anchors = set()
        seen: Counter[str] = Counter()
        for heading in _HEADING.findall(self.prose):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
            anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
        return anchors

    def section(self, title: str) -> str:
        """The text below a heading of the second level."""
        return self.text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]

    @cached_property
    def commands(self) -> list[list[str]]:
        """The commands that the page tells to run, as far as they are among `COMMANDS`."""
        lines = [line for language, text in self.blocks for line in _shell_lines(language, text)]
        found = [words for line in lines for words in _commands_in(line)]
        for span in self.spans:
            words = _words(span)
            while words and _ASSIGNMENT.match(words[0]):
                del words[0]
            if words and Path(words[0]).name in COMMANDS:
                found.append([Path(words[0]).name, *words[1:]])
        return found


def _shell_lines(language: str, text: str) -> Iterator[str]:
    """The lines of a block that are for a shell; without a language, those that look like it."""
    for line in text.splitlines():
        if language == "console":
            if line.startswith("$ "):
                yield line.removeprefix("$ ")
        elif language == "bash" or (not language and "&&" in line):
            yield line
        elif language == "yaml" and line.strip().startswith("- run: "):
            yield line.split("- run: ", 1)[1]


def _commands_in(line: str) -> Iterator[list[str]]:
    for part in re.split(r"&&|\|", re.sub(r"(^|\s)#.*", "", line)):
        words = _words(part)
        for at, word in enumerate(words):
            if Path(word).name in COMMANDS:
                yield [Path(word).name, *words[at + 1 :]]
                break


def _words(text: str) -> list[str]:
    """Split as a shell does; what follows a `>` is no argument."""
    try:
        words = shlex.split(text)
    except ValueError:  # no command: a message with an apostrophe in it
        return []
    return words[: words.index(">")] if ">" in words else words


def row_cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table, without its head."""
    rows = [line for line in table.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in re.split(r"(?<= )\|(?= )", row.strip().strip("|"))]
        for row in rows[2:]
    ]


README = Page(ROOT / "README.md")
DOCS = [Page(path) for path in sorted((ROOT / "docs").glob("*.md"))]
PAGES = [
    README,
    *(Page(ROOT / name) for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *DOCS,
    Page(ROOT / "transform" / "README.md"),
]


def doc(name: str) -> Page:
    """One of the pages in docs/."""
    return Page(ROOT / "docs" / f"{name}.md")
