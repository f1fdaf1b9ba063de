"""TLS and redirects, on real sockets; a process of its own, because the environment decides."""

from __future__ import annotations

import http.server
import json
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from bank import serving
from documented import SMS
from tap_process import NO_CA

from tap_balance.errors import connection_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tap_process import Run

pytestmark = pytest.mark.slow

BODY = json.dumps(SMS).encode()


@contextmanager
def balance_server(
    context: ssl.SSLContext | None = None, location: str | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Answer a balance, or redirect; yield the address and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if location else 200)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *args: Any) -> None:  # noqa: ANN401
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:  # noqa: ANN401
            """A client that hangs up on a bad certificate is no error here."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        with serving(server):
            yield f"{'https' if context else 'http'}://localhost:{server.server_port}", asked


def tls_server(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def settings(base_url: str) -> dict[str, Any]:
    return {
        "dev_key": "fake-key",
        "dev_secret": "fake-secret",
        "base_url": base_url,
        "max_attempts": 1,
    }


@pytest.mark.parametrize(
    ("trusted", "host", "words"),
    [
        (False, "localhost", "is not trusted (unable to get local issuer certificate)"),
        (True, "elsewhere.example", "is not trusted (Hostname mismatch"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_an_error_before_anything_is_sent(
    run_tap: Callable[..., Run],
    tmp_path: Path,
    trusted: bool,  # noqa: FBT001
    host: str,
    words: str,
) -> None:
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(bundle))
    with balance_server(tls_server(authority, host)) as (url, asked):
        run = run_tap(settings(url), env=NO_CA | {"REQUESTS_CA_BUNDLE": str(bundle)})
    assert run.status == 1
    assert words in run.errors[0]
    assert "REQUESTS_CA_BUNDLE" in run.errors[0]
    assert asked == []
    assert run.records == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "is not trusted (certificate is not yet valid)"),
        (10, "is not trusted (certificate has expired)"),
        (18, "is not trusted (as OpenSSL says it)"),
    ],
)
def test_the_dates_of_a_certificate_are_described_alike_by_every_openssl(
    code: int, words: str
) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "as OpenSSL says it"
    assert words in str(connection_error(error, "localhost", (), connected=False))


def test_a_ca_bundle_that_cannot_be_read_is_named(run_tap: Callable[..., Run]) -> None:
    env = NO_CA | {"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}
    run = run_tap(settings("https://localhost:1"), env=env)
    assert run.status == 1
    assert run.errors[0].startswith("REQUESTS_CA_BUNDLE: no certificates can be read")
    assert "Traceback" not in run.stderr


def test_a_redirect_is_an_error_and_the_other_host_hears_nothing(
    run_tap: Callable[..., Run],
) -> None:
    with (
        balance_server() as (other, heard),
        balance_server(location=f"{other}/v1/balance") as (url, asked),
    ):
        run = run_tap(settings(url))
    assert run.status == 1
    assert run.records == []
    assert "HTTP 302: a redirect, which is never followed" in run.errors[0]
    assert asked == ["/v1/balance"]
    assert heard == []
