"""What the tap says of itself, kept as files: a change of contract is then seen in review.

`pytest tests/test_public_contract.py --snapshot-update` updates them; CONTRIBUTING.md says
which changes are breaking ones.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from tap_balance.config import SETTINGS
from tap_balance.sandbox import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from syrupy.assertion import SnapshotAssertion
    from tap_process import Run

    from tap_balance.sandbox import Sandbox


class JSONText(SingleFileSnapshotExtension):
    """One file for each document, to be read in review."""

    _write_mode = WriteMode.TEXT
    file_extension = "json"


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(JSONText)


HINT = (
    "Is the change meant? Then update the snapshot with --snapshot-update, and read in "
    "CONTRIBUTING.md, under 'Changing the record', whether it is a breaking one."
)


def text_of(document: dict[str, Any], schema: dict[str, Any] | None = None) -> str:
    """Write a document so that only its meaning counts: the order of keys differs by SDK.

    The order of a schema's fields is the order of a target's columns, so it is written as well.
    """
    if schema is not None:
        document = document | {"columns": list(schema["properties"])}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def test_the_catalog(run_tap: Callable[..., Run], snapshot: SnapshotAssertion) -> None:
    catalog = json.loads(run_tap(None, "--discover").stdout)
    (entry,) = catalog["streams"]
    entry["metadata"].sort(key=lambda row: str(row["breadcrumb"]))
    assert text_of(catalog, entry["schema"]) == snapshot, HINT


def test_the_schema_message(
    run_tap: Callable[..., Run], snapshot: SnapshotAssertion, sandbox: Sandbox
) -> None:
    """What a target makes its columns of; the catalog has neither precision nor scale."""
    (message,) = run_tap(settings_of(sandbox.url, "example")).of_type("SCHEMA")
    assert text_of(message, message["schema"]) == snapshot, HINT


def test_about(run_tap: Callable[..., Run], snapshot: SnapshotAssertion) -> None:
    about = json.loads(run_tap(None, "--about", "--format=json").stdout)
    # They change without the contract: with each release, and with the SDK's.
    del about["version"], about["sdk_version"]
    about["settings"].pop("$schema", None)
    properties = about["settings"]["properties"]
    about["settings"]["properties"] = {name: properties[name] for name in SETTINGS["properties"]}
    assert text_of(about) == snapshot, HINT
