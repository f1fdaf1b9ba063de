"""A Meltano project of its own for the demos, the tests and the benchmark.

Meltano reads the file `.env` beside meltano.yml, and dbt one in any folder above. That of this
repository may name real accounts and a real database, and so may the user's environment; neither a
demo nor a test has any business there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_OF_THE_USER = ("AIRFLOW", "DBT_", "MELTANO_", "PG", "TAP_BALANCE_", "TARGET_")


def forget_the_users_settings() -> None:
    """Drop what the environment says of Airflow, dbt, Meltano, Postgres, tap and targets."""
    for name in list(os.environ):
        if name.startswith(_OF_THE_USER):
            del os.environ[name]
    # dbt 1.12 reads a `.env` of its working folder, or of any folder above.
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"


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
        shutil.copytree(ROOT / "plugins", folder / "plugins")
        shutil.copy(ROOT / "meltano.yml", folder)
    return folder
