"""The files that a run is given: config, catalog and state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from singer_sdk.singerlib import Catalog, Metadata, Schema

from tap_balance import strict_json
from tap_balance.errors import SettingsError
from tap_balance.streams import SCHEMA, BalanceStream

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

_ALWAYS = ("snapshot_id", "snapshot_at")
_NOT_A_CATALOG = "--catalog: the file is not a Singer catalog; make one with --discover"


def read_config(path: str) -> dict[str, Any]:
    """Read a config file; a byte order mark, as some editors write it, does no harm.

    Raises:
        SettingsError: It cannot be read, or is no JSON object. The line shows nothing of it.
    """
    if "{" in path:
        # Somebody has put the settings there; a path is shown, and they must not be.
        msg = "--config: is not a path; write the settings into a file, or use --config=ENV"
        raise SettingsError(msg)
    try:
        config = strict_json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"--config {path}: {error.strerror}"
        raise SettingsError(msg) from None
    except json.JSONDecodeError as error:
        msg = f"--config {path}: not JSON (line {error.lineno}, column {error.colno})"
        raise SettingsError(msg) from None
    except (ValueError, RecursionError):
        msg = f"--config {path}: not JSON in UTF-8"
        raise SettingsError(msg) from None
    if not isinstance(config, dict):
        msg = f"--config {path}: not a JSON object"
        raise SettingsError(msg)
    return config


def read_catalog(file: IO[str]) -> dict[str, Any]:
    """Read a catalog file.

    Raises:
        SettingsError: It is no JSON object.
    """
    try:
        catalog = json.loads(file.read())
    except (ValueError, RecursionError):
        catalog = None
    if not isinstance(catalog, dict):
        raise SettingsError(_NOT_A_CATALOG)
    return catalog


def complete_catalog(catalog: Catalog | Mapping[str, Any]) -> Catalog:
    """Give the stream in a catalog its key and its replication key, whatever the catalog says.

    Without the key, a target would append where it should replace; a catalog that was written by
    hand often has none.

    Raises:
        SettingsError: It is not a catalog.
    """
    try:
        if not isinstance(catalog, Catalog):
            catalog = Catalog.from_dict(dict(catalog))  # type: ignore[arg-type]
        entry = catalog.get_stream(BalanceStream.name)
        if entry is None:
            return catalog
        entry.key_properties = list(BalanceStream.primary_keys)
        entry.replication_key = BalanceStream.replication_key
        properties: dict[str, Schema] = entry.schema.properties or {}
        for field in _ALWAYS:
            properties.setdefault(field, Schema.from_dict(SCHEMA["properties"][field]))
            breadcrumb = ("properties", field)
            entry.metadata[breadcrumb].inclusion = Metadata.InclusionType.AUTOMATIC
        entry.schema.properties = properties
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SettingsError(_NOT_A_CATALOG) from None
    return catalog


def read_state(file: IO[str], logger: logging.Logger) -> dict[str, Any]:
    """Read a state file.

    A state decides nothing here, since a run always reads the balances of now. One that cannot
    be read is worth a warning, but not the loss of a snapshot that nobody can take again.
    """
    try:
        text = file.read()
        state = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        state = None
    if isinstance(state, dict):
        return state
    logger.warning("--state: the file is not a Singer state; it is ignored, the run goes on.")
    return {}
