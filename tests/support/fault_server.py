"""A server that can break the protocol at any byte: each connection follows a script of steps."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trustme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    Step: TypeAlias = "bytes | Callable[[Wire], None]"
    Script: TypeAlias = "Sequence[Step]"

PATIENCE = 20.0
"""Seconds after which a connection that nobody ends is ended, whatever its script says."""

AUTHORITY = trustme.CA()


@dataclass
class Wire:
    """One connection, as its script sees it."""

    socket: socket.socket
    server: FaultServer
    number: int
    request: bytes = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_for_hang_up(self) -> None:
        with suppress(TimeoutError, ConnectionError):
            while self.socket.recv(4096):
                pass


class FaultServer:
    """Serves the connections that it gets, each by its script; the last one serves the rest.

    Args:
        scripts: For the first connection, the second, ...
        host: The address to listen on.
    """

    def __init__(self, scripts: Sequence[Script], host: str = "127.0.0.1") -> None:
        self.scripts = scripts
        self.accepted: list[float] = []
        self.requests: list[bytes] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=128)
        self._host = host
        self.port: int = self._listener.getsockname()[1]
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        # A connection of our own wakes the thread up; closing the listener would not.
        with suppress(OSError), socket.create_connection((self._host, self.port), 1):
            pass
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._ending.is_set():
                connection.close()
                return
            wire = Wire(connection, self, len(self.accepted))
            self.accepted.append(time.monotonic())
            thread = threading.Thread(target=self._serve, args=(wire,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, wire: Wire) -> None:
        script = self.scripts[min(wire.number, len(self.scripts) - 1)]
        wire.socket.settimeout(PATIENCE)
        # The client may hang up at any moment, also in the middle of a handshake.
        with suppress(OSError):
            for step in script:
                if isinstance(step, bytes):
                    wire.send(step)
                else:
                    step(wire)
        wire.socket.close()


def read_request(wire: Wire) -> None:
    """Read one request and note it."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = wire.socket.recv(4096)
        if not received:
            break
        data += received
    wire.request = data
    if data:
        wire.server.requests.append(data)


def reset(wire: Wire) -> None:
    """Break the connection: the client gets "connection reset by peer"."""
    time.sleep(0.05)  # what was sent before has to arrive first
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.socket.close()


def hang(wire: Wire) -> None:
    """Say nothing more until the client hangs up."""
    wire.wait_for_hang_up()


def drip(data: bytes, pause: float = 0.1) -> Callable[[Wire], None]:
    """Send `data` over and over, with a pause after each time, until the client hangs up."""

    def step(wire: Wire) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            wire.send(data)
            time.sleep(pause)

    return step


def start_tls(
    *hosts: str, authority: trustme.CA = AUTHORITY, valid: tuple[int, int] = (-1, 30)
) -> Callable[[Wire], None]:
    """Speak TLS from here on.

    Args:
        hosts: For whom the certificate is.
        authority: Who signed it.
        valid: From and until when, in days from now.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = dt.datetime.now(dt.timezone.utc)
    begin, end = (now + dt.timedelta(days=days) for days in valid)
    authority.issue_cert(*hosts, not_before=begin, not_after=end).configure_cert(context)

    def step(wire: Wire) -> None:
        wire.socket = context.wrap_socket(wire.socket, server_side=True, suppress_ragged_eofs=True)

    return step


def http(
    status: int = 200,
    body: bytes = b"",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    reason: str = "Said So",
) -> list[Step]:
    """Answer as a server should, with the right length."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    names = {name.lower() for name, _ in pairs}
    if not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    pairs.append(("Connection", "close"))
    head = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return [read_request, f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1") + body]


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Frame a body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


@dataclass
class FullBacklog:
    """A port that neither takes nor refuses connections, as behind a firewall that drops them."""

    _held: list[socket.socket] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._held.append(listener)
        self.port = listener.getsockname()[1]
        for _ in range(4):
            filler = socket.socket()
            filler.settimeout(0)
            self._held.append(filler)
            with suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held:
            held.close()
