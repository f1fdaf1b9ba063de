"""Meltano's lock files in plugins/: the definitions of the plugins that meltano.yml names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from parts import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

PLUGINS = ROOT / "plugins"


def definition_of(kind: str, plugin: Mapping[str, Any]) -> dict[str, Any]:
    """Combine a plugin of meltano.yml with its lock file, as Meltano does.

    Args:
        kind: Such as "loaders".
        plugin: What meltano.yml says of it.
    """
    if "namespace" in plugin:  # defined in meltano.yml
        return dict(plugin)
    path = PLUGINS / kind / f"{plugin['name']}--{plugin['variant']}.lock"
    locked: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    commands = {**locked.get("commands", {}), **plugin.get("commands", {})}
    return {**locked, **plugin, "commands": commands}
