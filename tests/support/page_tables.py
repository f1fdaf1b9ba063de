"""What the report's page says without scripts: its tables, lists and sentences, as text."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "br", "rect", "path"}


@dataclass
class Element:
    """An element with its attributes and what is in it."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    @property
    def raw(self) -> str:
        return "".join(child if isinstance(child, str) else child.raw for child in self.children)

    @property
    def text(self) -> str:
        """All text in it, white space as a reader sees it."""
        return " ".join(self.raw.split())

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of a tag in it, with these attributes (`class_` for class)."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and wanted.items() <= child.attributes.items():
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def one(self, tag: str, **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def titles(self) -> list[str]:
        """What is shown where the pointer rests."""
        return [title for span in self.all("span") if (title := span.attributes.get("title"))]

    @property
    def rows(self) -> list[list[Element]]:
        """The cells of a table's body, row by row."""
        return [
            [cell for cell in row.children if isinstance(cell, Element)]
            for row in self.one("tbody").all("tr")
        ]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(text: str) -> Element:
    parser = _Parser()
    parser.feed(text)
    parser.close()
    (document,) = parser.open
    return document


def data_of(page: Element) -> dict[str, Any]:
    """What the scripts read."""
    data = page.one("script", id="data").text
    unpacked: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(data)))
    return unpacked
