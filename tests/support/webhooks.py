"""Webhooks on loopback, also those of other hosts: the server is a proxy, too."""

from __future__ import annotations

import json
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Received:
    """One request.

    Attributes:
        host: Of a request through the proxy; empty for others.
    """

    host: str
    path: str
    body: dict[str, Any]


@dataclass
class Webhooks:
    """Answers every POST, and keeps it.

    Attributes:
        status: For paths that are not in `statuses`.
        seconds: Before each answer.
    """

    port: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    seconds: float = 0
    received: list[Received] = field(default_factory=list)
    authority: trustme.CA = field(default_factory=trustme.CA)

    def taken(self) -> list[Received]:
        """What arrived since the last call."""
        received, self.received = self.received, []
        return received

    def as_proxy(self, folder: Path) -> dict[str, str]:
        """The environment in which every HTTPS request of requests arrives here."""
        path = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(path)
        return {"HTTPS_PROXY": f"http://127.0.0.1:{self.port}", "REQUESTS_CA_BUNDLE": str(path)}


@contextmanager
def webhooks() -> Iterator[Webhooks]:
    """Serve webhooks on loopback."""
    hooks = Webhooks()

    class Handler(BaseHTTPRequestHandler):
        host = ""

        def do_CONNECT(self) -> None:
            self.host = self.path.split(":")[0]
            self.send_response(200)
            self.end_headers()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            hooks.authority.issue_cert(self.host).configure_cert(context)
            with context.wrap_socket(self.connection, server_side=True) as connection:
                self.rfile = connection.makefile("rb")
                self.wfile = connection.makefile("wb")
                self.handle_one_request()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(hooks.seconds)
            hooks.received.append(Received(self.host, self.path, body))
            self.send_response(hooks.statuses.get(self.path, 200))
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hooks.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hooks
        finally:
            server.shutdown()
            thread.join()
