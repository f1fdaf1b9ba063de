"""What the code can say to a user: its texts, as patterns, read from the source."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_PRINTF = re.compile(r"%[sdr]|\{host\}")
_WORD = re.compile(r"\W*[A-Za-z][\w'-]*\W*")
"""Neither a number nor a format such as `%Y-%m`."""


class Source:
    """The texts in some Python files.

    Docstrings, the descriptions of settings, and what is only logged at DEBUG or INFO are none.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]

    @cached_property
    def texts(self) -> list[str]:
        """Each text, with `{}` for what differs; the longest first."""
        found = {
            _joined(parts)
            for tree in self._trees
            for node in _outside(tree, set(_skipped(tree)))
            if (parts := _parts(node))
        }
        return sorted(found, key=len, reverse=True)


def pattern_of(text: str) -> re.Pattern[str]:
    """The pattern of what a text can become; what differs at its ends does not count."""
    fixed = text.removeprefix("{}").removesuffix("{}").strip()
    # Whole words only: "on" is a text too, and is no part of "connection".
    start, end = (r"\b" if char.isalpha() else "" for char in (fixed[:1], fixed[-1:]))
    return re.compile(start + re.escape(fixed).replace(r"\{\}", ".{1,60}?") + end)


def words_of(text: str) -> list[str]:
    """The words of a text, one of a letter among them, without what differs."""
    return [word for word in text.replace("{}", " ").split() if _WORD.fullmatch(word)]


def _joined(parts: list[str | None]) -> str:
    return "".join("{}" if part is None else part for part in parts)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _parts(node: ast.AST) -> list[str | None]:
    """The parts of a text, None for each that differs; nothing if the node is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        pieces = _PRINTF.split(node.value)
        return [part for piece in pieces for part in (piece, None)][:-1]
    if isinstance(node, ast.JoinedStr):
        return [
            str(value.value) if isinstance(value, ast.Constant) else None for value in node.values
        ]
    return []


def _skipped(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node
        if isinstance(node, ast.keyword) and node.arg in {"description", "title", "doc_md"}:
            yield node
        if isinstance(node, ast.Call) and _name(node.func) in {"debug", "info", "filterwarnings"}:
            yield node


def _outside(tree: ast.AST, skipped: set[ast.AST]) -> Iterator[ast.AST]:
    """Walk, but into neither what is skipped nor the parts of an f-string."""
    for child in ast.iter_child_nodes(tree):
        if child in skipped:
            continue
        yield child
        if not isinstance(child, ast.JoinedStr):
            yield from _outside(child, skipped)
        else:
            for value in child.values:
                if isinstance(value, ast.FormattedValue):
                    yield from _outside(value, skipped)
