"""The wire: one TLS context, connections that keep a deadline, bodies that keep a limit."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tap_balance.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_BODY = 1024 * 1024
"""Bytes of a body, after decompression, that are read at most."""

_FINAL = 200  # the smallest status that is not an interim one
_TOLERANCE = 0.1
"""Seconds by which receiving may miss the deadline."""

_CHUNK = 16 * 1024
_current = threading.local()


class BodyTooLargeError(Exception):
    """The body is longer than `LARGEST_BODY`."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound the time that this thread spends on receiving, however it trickles in.

    The socket's own time-out starts anew with every byte, so that a server that sends one byte a
    second would never run into it.

    Args:
        seconds: From now.
    """
    _current.deadline = time.monotonic() + seconds
    try:
        yield
    finally:
        _current.deadline = None


def _remaining() -> float | None:
    end: float | None = getattr(_current, "deadline", None)
    if end is None:
        return None
    seconds = end - time.monotonic()
    if seconds <= 0:
        msg = "the answer took too long"
        raise TimeoutError(msg)
    return seconds


def _bound(plain: socket.socket) -> None:
    seconds = _remaining()
    if seconds is None:
        return
    timeout = plain.gettimeout()
    # Each change is a call to the system; most answers come long before it matters.
    if timeout is None or timeout > seconds + _TOLERANCE:
        plain.settimeout(seconds)


class _Socket(socket.socket):
    """A socket that gives up receiving at the thread's deadline."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401
        _bound(self)
        return super().recv_into(*args, **kwargs)

    def recv(self, *args: Any) -> bytes:  # noqa: ANN401
        _bound(self)  # urllib3 receives this way for TLS within the TLS of a proxy
        return super().recv(*args)


class _SSLSocket(ssl.SSLSocket):
    """The same over TLS."""

    def do_handshake(self, *args: Any) -> None:  # noqa: ANN401
        _bound(self)
        super().do_handshake(*args)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401
        _bound(self)
        return super().recv_into(*args, **kwargs)

    def recv(self, *args: Any, **kwargs: Any) -> bytes:  # noqa: ANN401
        _bound(self)
        return super().recv(*args, **kwargs)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _with_deadline(super()._new_conn())


class _SecureConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        # The context's `sslsocket_class` keeps the deadline once the handshake is done; until
        # then this does, also while a proxy answers.
        return _with_deadline(super()._new_conn())


def _with_deadline(plain: socket.socket) -> socket.socket:
    timeout = plain.gettimeout()
    bounded = _Socket(plain.family, plain.type, plain.proto, plain.detach())
    bounded.settimeout(timeout)
    return bounded


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Session(requests.Session):
    """A session that sends what it is told to and nothing else.

    Neither .netrc nor a cookie may speak for an account, and proxies and CAs come from elsewhere.
    Without following a redirect, `requests` still looks at where it leads, and trips over some.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect."""


_POOLS = {"http": _Pool, "https": _SecurePool}


class Adapter(HTTPAdapter):
    """The `requests` adapter of a run: its connections keep the deadline and share a TLS context.

    Args:
        connections: Connections to one host at most; who needs one more waits.
        context: The TLS context, or None for an adapter that only speaks plain HTTP.
    """

    def __init__(self, connections: int, context: ssl.SSLContext | None = None) -> None:
        self._tls: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__(pool_maxsize=connections, pool_block=True)

    def init_poolmanager(
        self,
        connections: int,
        maxsize: int,
        block: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(connections, maxsize, block, **self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401
        """Make the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **kwargs, **self._tls)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def build_response(self, req: Any, resp: Any) -> requests.Response:  # noqa: ANN401
        """Take an answer as it came, but for its cookies: some crash the parser."""
        original = getattr(resp, "_original_response", None)
        if original is not None and original.msg is not None:
            del original.msg["Set-Cookie"], original.msg["Set-Cookie2"]
        return super().build_response(req, resp)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ANN401, ARG002
        """Leave the CAs to the shared context, instead of loading them anew per connection."""
        conn.cert_reqs = "CERT_REQUIRED"


def tls_context() -> ssl.SSLContext:
    """Make the TLS context of a run; the certificate and the host name are always checked.

    The CAs are those of `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` (as `requests.get` would do),
    else of `SSL_CERT_FILE` and `SSL_CERT_DIR` (as OpenSSL would do), else certifi's.

    Raises:
        SettingsError: The variable names something that holds no certificate.
    """
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if bundle := os.environ.get(variable):
            break
    else:
        variable, bundle = "the CA bundle of certifi", DEFAULT_CA_BUNDLE_PATH
        if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
            bundle = None
    # Unlike `Path.is_dir`, this does not raise for a path that cannot be looked at.
    folder = bundle is not None and os.path.isdir(bundle)  # noqa: PTH112
    try:
        context = ssl.create_default_context(
            cafile=None if folder else bundle, capath=bundle if folder else None
        )
    except OSError:
        msg = f"{variable}: no certificates can be read from the file that it names"
        raise SettingsError(msg) from None
    context.sslsocket_class = _SSLSocket
    return context


def read_body(response: requests.Response) -> bytes:
    """Read and decompress a body, up to the limit, and give its connection back.

    Raises:
        BodyTooLargeError: It is longer than `LARGEST_BODY`.
        requests.RequestException: It is cut off, corrupt, or late.
    """
    body = bytearray()
    with response:
        if response.status_code < _FINAL and response.raw.connection:
            # An interim answer: the real one may still come, and must not be taken for that to
            # the next request on this connection.
            response.raw.connection.close()
        for chunk in response.iter_content(_CHUNK):
            body += chunk
            if len(body) > LARGEST_BODY:
                raise BodyTooLargeError
    return bytes(body)
