"""A Meltano project of its own for the demos and the tests.

Meltano reads the file `.env` beside meltano.yml. The one of this repository's folder may name real
accounts and a real database, and neither a demo nor a test has any business there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_OF_THE_USER = ("DBT_", "MELTANO_", "TAP_BALANCE_", "TARGET_")


def environment() -> dict[str, str]:
    """Copy this process's environment, without what the user has set for tap, targets and dbt."""
    return {
        name: text for name, text in os.environ.items() if not name.startswith(_OF_THE_USER)
    } | {"MELTANO_CLI_DISABLE_VERSION_CHECK": "1"}


def make(folder: Path) -> Path:
    """Make a project with this repository's definitions, installed plugins and dbt models.

    Its runs must say `--no-install`, because the plugins are shared.

    Args:
        folder: Where to; if there is one, it is left as it is.
    """
    if not (folder / "meltano.yml").exists():
        own = folder / ".meltano"
        own.mkdir(parents=True)
        for kind in ("extractors", "loaders", "utilities"):
            (own / kind).symlink_to(ROOT / ".meltano" / kind)
        (folder / "transform").symlink_to(ROOT / "transform")
        shutil.copy(ROOT / "meltano.yml", folder)
    return folder
