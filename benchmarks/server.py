"""The API for benchmarks: fast, in a process of its own, with counters.

It prints its address, answers every `GET` with the documented balance, and `GET /counters` with
what it has counted since the last time it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
from pathlib import Path

import trustme

BODY = json.dumps({
    "balance10000": 123456, "gift_balance10000": 20000, "balance": 12.3456, "gift_balance": 2,
    "total_balance10000": 143456, "total_balance": 14.3456,
}).encode()  # fmt: skip
HEAD = "HTTP/1.1 {} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


def answer(status: int, body: bytes) -> bytes:
    return HEAD.format(status, len(body)).encode() + body


GOOD = answer(200, BODY)
BAD = answer(500, b'{"code": 1000, "message": "internal error"}')


class Counters:
    """What has happened since the counters were last read."""

    def __init__(self) -> None:
        self.requests = 0
        self.connections = 0
        self.asked = 0

    def read(self) -> bytes:
        # The connection that asks is none of those that are measured.
        counted = {"requests": self.requests, "connections": self.connections - 1}
        self.requests = self.connections = self.asked = 0
        return answer(200, json.dumps(counted).encode())


class Connection(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    def __init__(self, counters: Counters, options: argparse.Namespace) -> None:
        self._counters = counters
        self._options = options
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._counters.connections += 1
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if head.startswith(b"GET /counters "):
                self._send(self._counters.read())
                continue
            self._counters.requests += 1
            number = self._counters.requests
            latency: float = self._options.latency
            if self._options.tail and number % self._options.every == 0:
                latency *= self._options.tail
            failing = self._options.errors and number % self._options.errors == 0
            reply = BAD if failing else GOOD
            if latency:
                asyncio.get_running_loop().call_later(latency, self._send, reply)
            else:
                self._send(reply)

    def _send(self, reply: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(reply)


async def serve(options: argparse.Namespace) -> None:
    context = None
    if options.tls:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(options.tls))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
    counters = Counters()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(counters, options), "127.0.0.1", 0, ssl=context, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]
    print(f"{'https://localhost' if context else 'http://127.0.0.1'}:{port}", flush=True)
    # Whoever started it holds the other end; when that closes, nobody needs it any more.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument(
        "--tail", type=float, default=0.0, metavar="TIMES", help="of some responses"
    )
    parser.add_argument("--every", type=int, default=100, metavar="N", help="one of N is slow")
    parser.add_argument("--errors", type=int, default=0, metavar="N", help="one of N is 500")
    parser.add_argument("--tls", type=Path, metavar="FILE", help="where to write the CA")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
