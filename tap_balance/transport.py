"""The wire: one TLS context, connections that keep a deadline, bodies of limited size."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError, ProtocolError, ProxyError, SSLError
from urllib3.util import Retry
from urllib3.util.connection import allowed_gai_family

from tap_balance.accounts import is_loopback
from tap_balance.errors import SettingsError

LARGEST_BODY = 1024 * 1024
"""Bytes of a body, after decompression, that are read at most."""
_LARGEST_RESPONSE = 2 * LARGEST_BODY  # as it is sent, interim responses and headers included
_CONNECT_TIMEOUT = 10.0  # seconds for one address
_TOLERANCE = 0.1  # seconds by which receiving may miss the deadline


class Attempt(threading.local):
    """What this thread's attempt has come to; connections read and update it."""

    deadline = 0.0  # on the monotonic clock
    connected = False  # whether the request was sent, so that the host can be reached
    stale = False  # whether the connection has served others, and nothing has come for this one
    received = 0  # bytes of the response, and of what a proxy said before it

    def begin(self, seconds: float) -> None:
        """Bound everything that this thread's connections do from now on by one deadline.

        A socket's own time-out begins again with each byte and each address, so that a server
        that sends one byte a second would never exceed it.
        """
        self.deadline = time.monotonic() + seconds
        self.connected = self.stale = False
        self.received = 0

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, or a TimeoutError if it has passed."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the attempt has exceeded its time")
        return seconds


attempt = Attempt()


class _Socket(socket.socket):
    """A socket that receives until the deadline, and within the limit for a response."""

    def settimeout(self, value: float | None) -> None:
        # Each time is a call to the system, at which another thread takes over, and urllib3 sets
        # it twice per request.
        if value != self.gettimeout():
            super().settimeout(value)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        seconds = attempt.remaining
        timeout = self.gettimeout()
        if timeout is None or timeout > seconds + _TOLERANCE:
            self.settimeout(seconds)
        count = super().recv_into(*args, **kwargs)
        attempt.received += count
        if attempt.received > _LARGEST_RESPONSE:
            raise http.client.HTTPException(f"a response of more than {_LARGEST_RESPONSE} bytes")
        return count


class _TLSSocket(_Socket, ssl.SSLSocket):
    """The same with TLS."""

    def do_handshake(self, *args: Any) -> None:
        self.settimeout(attempt.remaining)
        super().do_handshake(*args)

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        # TLS within the TLS of a proxy is received this way.
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer, size, flags)])


class _Response(http.client.HTTPResponse):
    """A response, without the interim ones (1xx) before it: `http.client` skips only 100."""

    def begin(self) -> None:
        if self.fp.peek(1):
            attempt.stale = False
        super().begin()
        while self.status < http.client.OK:
            self.headers = None  # type: ignore[assignment]
            super().begin()


class _Connection(HTTPConnection):
    """Mixed into each kind of connection that urllib3 makes: plain, TLS, and through SOCKS."""

    response_class = _Response
    _used = False

    def _new_conn(self) -> socket.socket:
        if hasattr(self, "_socks_options"):
            self.timeout = min(_CONNECT_TIMEOUT, attempt.remaining)
            try:
                return super()._new_conn()
            except NewConnectionError as error:
                raise ProxyError("the SOCKS proxy did not connect", error) from error
        return _connect(self._dns_host, self.port, self.socket_options)

    def request(self, *args: Any, **kwargs: Any) -> None:
        attempt.stale, self._used = self._used, True
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        attempt.connected = True
        return super().getresponse()

    def close(self) -> None:
        self._used = False
        super().close()


def _connect(host: str, port: int, options: Any) -> socket.socket:
    """Connect to the first address of a host that accepts.

    All addresses share the time of the attempt. The look-up of the name takes what the system
    takes; there is no way to limit it.
    """
    addresses = socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM)
    failure: OSError = OSError("the host has no address")
    for left, (*kind, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        sock = None
        try:
            sock = _Socket(*kind)
            for option in options or ():
                sock.setsockopt(*option)
            sock.settimeout(min(_CONNECT_TIMEOUT, attempt.remaining / left))
            sock.connect(address)
        except OSError as error:  # the next address
            failure = error
            if sock:
                sock.close()
        else:
            return sock
    raise failure


class Adapter(HTTPAdapter):
    """The `requests` adapter of a run, for one scheme, with connections to each of the hosts."""

    def __init__(self, hosts: int, connections: int, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._pools: dict[str | None, tuple[Any, str]] = {}
        super().__init__(hosts, connections, Retry(total=False), pool_block=True)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs | {"ssl_context": self._context})

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Create the pools of connections through a proxy."""
        if self._context and proxy.lower().startswith("https"):
            kwargs["proxy_ssl_context"] = self._context
        return super().proxy_manager_for(proxy, **kwargs | {"ssl_context": self._context})

    def send(self, request: Any, *_: Any, **options: Any) -> requests.Response:
        """Send a request. What it raises is urllib3's, if it is not about an address.

        Unlike its parent's, the response has no cookies: some crash the parser, and none is sent.
        """
        pool, path = self._pools.get(request.url) or self._pool(request)
        options |= {"retries": self.max_retries, "redirect": False, "preload_content": False}
        while True:
            try:
                raw = pool.urlopen(request.method, path, headers=request.headers, **options)
                break
            except (ProtocolError, ProxyError, SSLError):
                # Servers close idle connections whenever they like, so one from the pool that
                # was dead already is replaced; everything else is an attempt of the account.
                if not attempt.stale:
                    raise
                attempt.connected = attempt.stale = False  # the next may fail before it is sent
        response = requests.Response()
        response.status_code = raw.status
        response.headers = raw.headers
        response.raw = raw
        response.request = request
        return response

    def _pool(self, request: Any) -> tuple[Any, str]:
        """Find the pool for a URL, whose connections keep the deadline."""
        local = is_loopback(urlsplit(request.url).hostname or "")  # never behind a proxy
        proxies = {} if local else get_environ_proxies(request.url)
        pool: Any = self.get_connection_with_tls_context(request, verify=True, proxies=proxies)
        kind = pool.ConnectionCls
        if not issubclass(kind, _Connection):
            pool.ConnectionCls = type(kind.__name__, (_Connection, kind), {})
        self._pools[request.url] = pool, request.path_url
        return self._pools[request.url]

    def close(self) -> None:
        """Close the connections that are idle."""
        for pool, _ in list(self._pools.values()):  # threads may still add some
            pool.close()
        super().close()


def tls_context() -> ssl.SSLContext:
    """Make the TLS context of a run; the certificate and the host name are always checked.

    The CAs are those of `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` (as `requests.get` would do),
    otherwise of `SSL_CERT_FILE` and `SSL_CERT_DIR` (as OpenSSL would do), otherwise certifi's.

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
        raise SettingsError(
            f"{variable}: no certificates can be read from the file that it names"
        ) from None
    context.sslsocket_class = _TLSSocket
    return context
