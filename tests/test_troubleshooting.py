"""docs/troubleshooting.md explains messages that the tap and the DAG do say."""

from __future__ import annotations

import errno
import json
import os
import re
from decimal import Decimal

import pytest
from messages import Source, pattern_of, words_of
from pages import doc, row_cells
from parts import ROOT

from tap_balance.config import SETTINGS
from tap_balance.errors import api_error

PAGE = doc("troubleshooting")
TAP = Source(path for path in (ROOT / "tap_balance").glob("*.py") if path.name != "sandbox.py")
DAG = Source((ROOT / "orchestrate" / "dags").rglob("*.py"))
NAMES = {"meltano", "target", "postgres", "tap", "balance", "destination", "--config"}
"""What the page's messages name, besides settings; no part of a message."""


def messages(section: str) -> list[str]:
    """The messages in the tables of a section."""
    text = PAGE.section(section)
    cells = [
        row for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE) for row in row_cells(table)
    ]
    found = [re.fullmatch(r"(`+) ?(.+?) ?\1", row[0]) for row in cells]
    assert all(found)
    return [match[2] for match in found if match]


REFUSED = "The API refused an account"
OF_THE_TAP = [
    REFUSED,
    "The response is not a balance",
    "No response",
    "The settings",
    "Files and the environment",
    "stdout, signals and defects",
]
OF_THE_DAG = "Airflow's tasks"


def answers() -> list[str]:
    listed = messages(REFUSED) + messages("The response is not a balance")
    return [message for message in listed if "(MESSAGE)" in message]


@pytest.mark.parametrize("message", answers())
def test_an_answers_message_is_what_the_tap_says(message: str) -> None:
    match = re.match(r"HTTP (\d+)(?:, code (\d+))? \(MESSAGE\): ", message)
    assert match
    code = int(match[2]) if match[2] else None
    assert api_error(int(match[1]), code, "MESSAGE").happened == message


def rest_of(message: str, source: Source) -> list[str]:
    """The words of a message that come from no text of the source, longest text first."""
    for text in [os.strerror(errno.ENOENT), *source.texts]:
        if words_of(text):
            message = pattern_of(text).sub(" ", message)
    words = re.findall(r"(?<![\w'])[a-z_]{2,}", re.sub(r"'[^']*'", "", message))
    return [word for word in words if word not in NAMES | set(SETTINGS["properties"])]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *((TAP, line) for part in OF_THE_TAP for line in messages(part) if line not in answers()),
        *((DAG, line) for line in messages(OF_THE_DAG)),
    ],
)
def test_a_message_is_made_of_texts_in_the_source(source: Source, message: str) -> None:
    assert rest_of(message, source) == []


def system_messages() -> list[str]:
    """What Python and the system say, and Meltano passes on."""
    with pytest.raises(TypeError) as no_json:
        json.dumps(Decimal(1))
    with pytest.raises(ValueError, match="invalid literal") as no_integer:
        int("1.5")
    too_long = OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    return [str(no_json.value), str(no_integer.value).split(":")[0], str(too_long)]


def meltano_messages() -> list[str]:
    """What is Meltano's own in the messages of its section."""
    system = "|".join(map(re.escape, system_messages()))
    return [own for message in messages("Meltano") if (own := re.sub(system, "", message))]


def test_the_messages_of_python_and_the_system_are_theirs() -> None:
    assert meltano_messages() == [
        "Extractor failed",
        "Loader failed",
        "Extractor and loader failed",
        "Cannot start plugin tap-balance: ",
        "pipeline is already running",
    ]


@pytest.mark.e2e
@pytest.mark.usefixtures("meltano")
def test_meltanos_messages_are_in_its_source() -> None:
    (package,) = (ROOT / ".venvs" / "meltano" / "lib").glob("python3*/site-packages/meltano")
    sources = [path.read_text(encoding="utf-8") for path in package.glob("**/*.py")]
    for message in meltano_messages():
        pattern = re.escape(message).replace(r"tap\-balance", r"\{[^}]+\}")
        assert any(re.search(pattern, source) for source in sources), message
