"""A PgBouncer of the operating system, in front of the embedded Postgres."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from system_programs import require_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    import embedded

PORT = 6432
PATIENCE = 10.0
"""Seconds for PgBouncer to listen."""


@contextmanager
def pgbouncer(server: embedded.Postgres, folder: Path, pool_mode: str) -> Iterator[str]:
    """Run a pooler, or skip the test where there is none (in CI: fail it).

    Args:
        server: Where it connects to.
        folder: For its files; the server's user must be able to write to it.
        pool_mode: "session" or "transaction".

    Yields:
        The host and the port as the query of a URL, since it listens on a Unix socket.
    """
    program = require_program("pgbouncer", package="pgbouncer")
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"""
[databases]
* = host={server.socket_folder} user=postgres
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {folder}
auth_type = any
pool_mode = {pool_mode}
client_login_timeout = 10
""",
        encoding="utf-8",
    )
    # It refuses to run as root. The server's own user reaches the server's socket.
    owner = Path(server.socket_folder).stat().st_uid
    options = ["-u", pwd.getpwuid(owner).pw_name] if os.geteuid() == 0 else []
    log = folder / "pgbouncer.log"
    with (
        log.open("wb") as output,
        subprocess.Popen([program, *options, settings], stdout=output, stderr=output) as process,
    ):
        try:
            wait_until_it_listens(folder / f".s.PGSQL.{PORT}", process, log)
            yield f"host={folder}&port={PORT}"
        finally:
            process.terminate()


def wait_until_it_listens(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text(encoding="utf-8"))
