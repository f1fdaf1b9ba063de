"""The wire, on real sockets: deadlines, interim responses, stale connections, proxies."""

from __future__ import annotations

import select
import socket
import ssl
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from fault_server import FaultServer, FullBacklog, drip, hang, http, read_request, reset, start_tls
from faults import BODY, CA_PEM, LENGTH, OK, WHOLE, always, head, read_hello
from fetching import fetch, fetch_from
from parts import NO_PROXY
from tap_process import NO_CA

from tap_balance.accounts import Account
from tap_balance.errors import AccountError, RetriableError, connection_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fault_server import Script, Wire
    from tap_process import Run

pytestmark = pytest.mark.slow

CONNECTED = head("HTTP/1.1 200 Connection established")
KEPT_ALIVE = head(OK, LENGTH) + BODY  # which does not say that the connection is closed


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CA_PEM)
    for name, value in (NO_CA | NO_PROXY | {"REQUESTS_CA_BUNDLE": str(ca)}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def use(proxy: str) -> None:
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HTTPS_PROXY", proxy)

    return use


def at(base_url: str) -> Account:
    return Account("a", "k", "s", "sms", f"{base_url}/v1/balance")


def accounts(count: int, base_url: str) -> list[Account]:
    return [Account(f"a{i}", "k", "s", "sms", f"{base_url}/v1/balance") for i in range(count)]


def after(seconds: float) -> Callable[[Wire], None]:
    return lambda _: time.sleep(seconds)


def answer_once_then_die(wire: Wire, *, by_reset: bool) -> None:
    read_request(wire)
    wire.send(KEPT_ALIVE)
    read_request(wire)
    if by_reset:
        reset(wire)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "steps",
    [
        [read_request, KEPT_ALIVE],
        [read_request, KEPT_ALIVE, after(0.002)],
        [partial(answer_once_then_die, by_reset=False)],
        [partial(answer_once_then_die, by_reset=True)],
    ],
    ids=["closed", "closed a little later", "closed at the next request", "reset at the next one"],
)
def test_a_pooled_connection_that_died_costs_no_attempt(scheme: str, steps: list[Any]) -> None:
    script: Script = steps if scheme == "http" else [start_tls("localhost"), *steps]
    with FaultServer([script]) as server:
        listed = accounts(20, f"{scheme}://localhost:{server.port}")
        outcomes = fetch_from(listed, max_attempts=1, max_concurrency=4)
    assert [error for _, error in outcomes if isinstance(error, AccountError)] == []


@pytest.mark.parametrize(
    ("then", "happened"),
    [
        ([start_tls("localhost", authority=trustme.CA())], "is not trusted"),
        ([read_hello, reset], "broke before the response was complete"),
    ],
)
def test_a_pooled_connection_that_died_is_replaced_once(then: Script, happened: str) -> None:
    first: Script = [start_tls("localhost"), partial(answer_once_then_die, by_reset=False)]
    with FaultServer([first, then]) as server:
        listed = accounts(2, f"https://localhost:{server.port}")
        outcome = dict(fetch_from(listed, max_attempts=1, max_concurrency=1))[listed[1]]
    assert isinstance(outcome, AccountError)
    assert happened in str(outcome)
    assert outcome.unreachable
    assert len(server.accepted) == 2


def test_a_pooled_connection_that_dies_after_the_first_byte_costs_one() -> None:
    def die_in_the_second(wire: Wire) -> None:
        read_request(wire)
        wire.send(KEPT_ALIVE)
        read_request(wire)
        wire.send(b"HTTP/1.1 2")

    with FaultServer([[die_in_the_second]]) as server:
        listed = accounts(2, f"http://127.0.0.1:{server.port}")
        outcomes = dict(fetch_from(listed, max_attempts=1, max_concurrency=1))
    assert [type(outcome).__name__ for outcome in outcomes.values()] == [
        "Balance",
        "RetriableError",
    ]


@pytest.mark.parametrize("status", ["102 Processing", "103 Early Hints", "199 Private"])
def test_interim_responses_are_skipped(status: str) -> None:
    interim = head(f"HTTP/1.1 {status}", "Link: </style.css>; rel=preload")
    script: Script = [read_request, interim, head("HTTP/1.1 100 Continue"), interim, WHOLE]
    with FaultServer([script]) as server:
        balance = fetch(at(f"http://127.0.0.1:{server.port}"), max_attempts=1)
    assert balance.amounts.balance10000 == 123456


def test_a_flood_of_interim_responses_ends_long_before_its_time() -> None:
    flood = drip(head("HTTP/1.1 103 Early Hints") * 1000, pause=0)
    with (
        FaultServer(always(read_request, flood)) as server,
        pytest.raises(RetriableError, match="broke before the response was complete"),
    ):
        fetch(at(f"http://127.0.0.1:{server.port}"), max_attempts=1, request_timeout=15)
    assert server.accepted[0] > time.monotonic() - 10


DRIP = drip(b"X: y\r\n")
RECORD = b"\x16\x03\x03\x40\x00"  # the head of a TLS record of 16 KiB
LATE: dict[str, tuple[Script, str, str]] = {
    "TLS that hangs": ((hang,), "https://localhost:{port}", ""),
    "TLS that drips": ((read_hello, RECORD, drip(b"\x02")), "https://localhost:{port}", ""),
    "a late TLS, then a body that drips": (
        (after(0.5), start_tls("localhost"), read_request, head(OK), DRIP),
        "https://localhost:{port}", "",
    ),
    "a proxy that drips": ((read_request, CONNECTED[:-2], DRIP), "https://balance.invalid", "http"),
    "a late proxy, then TLS that hangs": (
        (read_request, after(0.5), CONNECTED, hang), "https://balance.invalid", "http",
    ),
    "TLS of a proxy, then TLS in it that drips": (
        (start_tls("localhost"), read_request, CONNECTED, RECORD, drip(b"\x02")),
        "https://balance.invalid", "https",
    ),
    "a SOCKS proxy that hangs": ((read_hello, hang), "https://balance.invalid", "socks5h"),
    "late headers, then a body that drips": (
        (read_request, after(0.5), head(OK, "Content-Length: 1000"), DRIP),
        "http://127.0.0.1:{port}", "",
    ),
    "trailers that drip": (
        (read_request, head(OK, "Transfer-Encoding: chunked"), b"0\r\n", DRIP),
        "http://127.0.0.1:{port}", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("late", LATE)
def test_an_attempt_ends_in_its_time_whatever_is_late(
    late: str, behind: Callable[[str], None]
) -> None:
    script, base_url, proxy = LATE[late]
    with FaultServer([script]) as server:
        if proxy:
            behind(f"{proxy}://localhost:{server.port}")
        began = time.monotonic()
        with pytest.raises(RetriableError, match=r"timed out|in time"):
            fetch(at(base_url.format(port=server.port)), max_attempts=1, request_timeout=0.8)
        assert 0.7 < time.monotonic() - began < 1.2


@pytest.mark.parametrize(("silent", "seconds"), [(3, 0.9), (1, 0.45)])
def test_all_addresses_of_a_name_share_the_time_of_an_attempt(
    monkeypatch: pytest.MonkeyPatch, silent: int, seconds: float
) -> None:
    with FaultServer([http(200, BODY)]) as server, FullBacklog() as full:
        listening = ("127.0.0.1", server.port)
        addresses = [("127.0.0.1", full.port)] * silent + [listening] * (2 - min(silent, 2))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        look_up = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *args: found if host == "several.example" else look_up(host, *args),
        )
        began = time.monotonic()
        outcome = fetch_from([at("http://several.example")], request_timeout=0.9, max_attempts=1)
        assert seconds - 0.1 < time.monotonic() - began < seconds + 0.4
    ((_, balance),) = outcome
    assert isinstance(balance, AccountError) == (silent == 3)


def test_an_address_that_this_machine_cannot_use_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FaultServer([http(200, BODY)]) as server:
        here = ("127.0.0.1", server.port)
        # As IPv6 is where the kernel has none; no kernel here knows a family of this number.
        found = [(family, socket.SOCK_STREAM, 6, "", here) for family in (255, socket.AF_INET)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        assert fetch(at("http://several.example")).amounts.balance10000 == 123456


def test_an_ipv6_address_is_a_host() -> None:
    with FaultServer([http(200, BODY)], "::1") as server:
        assert fetch(at(f"http://[::1]:{server.port}")).amounts.balance10000 == 123456


def greet(wire: Wire) -> None:
    """Accept a SOCKS5 client without a password, and connect it (RFC 1928)."""
    wire.socket.recv(300)
    wire.send(b"\x05\x00")
    assert b"balance.invalid" in wire.socket.recv(300)
    wire.send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")


def test_a_socks_proxy_carries_a_request(behind: Callable[[str], None]) -> None:
    with FaultServer([[greet, start_tls("balance.invalid"), *http(200, BODY)]]) as server:
        behind(f"socks5h://127.0.0.1:{server.port}")
        assert fetch(at("https://balance.invalid")).amounts.balance10000 == 123456


def tunnel(port: int) -> Callable[[Wire], None]:
    """Carry bytes in both directions between a client and a port, as a proxy does."""

    def step(wire: Wire) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            other = {server: wire.socket, wire.socket: server}
            while True:
                for source in select.select(other, [], [])[0]:
                    if not (data := source.recv(65536)):
                        return
                    other[source].sendall(data)

    return step


PROXIES = pytest.mark.parametrize("proxy", ["http", "https"])


@contextmanager
def proxied(scheme: str, *scripts: Script) -> Iterator[str]:
    """Serve balance.invalid behind a proxy of this scheme; yield the proxy's address."""
    secure = start_tls("balance.invalid")
    with FaultServer([[secure, *script] for script in scripts]) as server:
        steps: list[Any] = [read_request, CONNECTED, tunnel(server.port)]
        steps[:0] = [start_tls("localhost")] if scheme == "https" else []
        with FaultServer([steps]) as proxy:
            yield f"{scheme}://localhost:{proxy.port}"


@PROXIES
def test_a_proxy_carries_a_request(behind: Callable[[str], None], proxy: str) -> None:
    with proxied(proxy, http(200, BODY)) as address:
        behind(address)
        assert fetch(at("https://balance.invalid")).amounts.balance10000 == 123456


def answer_once_then_say_goodbye(wire: Wire) -> None:
    answer_once_then_die(wire, by_reset=False)
    assert isinstance(wire.socket, ssl.SSLSocket)
    wire.socket.unwrap()


@PROXIES
@pytest.mark.parametrize(
    "step",
    [partial(answer_once_then_die, by_reset=False), answer_once_then_say_goodbye],
    ids=["closed", "closed in the words of TLS"],
)
def test_a_pooled_connection_that_died_behind_a_proxy_costs_no_attempt(
    behind: Callable[[str], None], proxy: str, step: Callable[[Wire], None]
) -> None:
    with proxied(proxy, [step]) as address:
        behind(address)
        listed = accounts(6, "https://balance.invalid")
        outcomes = fetch_from(listed, max_attempts=1, max_concurrency=2)
    assert [error for _, error in outcomes if isinstance(error, AccountError)] == []


@PROXIES
def test_a_response_that_is_too_large_costs_only_its_account(
    behind: Callable[[str], None], proxy: str
) -> None:
    flood = drip(head("HTTP/1.1 103 Early Hints") * 1000, pause=0)
    with proxied(proxy, [read_request, flood], http(200, BODY)) as address:
        behind(address)
        listed = accounts(3, "https://balance.invalid")
        outcomes = fetch_from(listed, max_attempts=1, max_concurrency=1)
    assert [type(outcome).__name__ for _, outcome in outcomes] == [
        "RetriableError", "Balance", "Balance"
    ]  # fmt: skip


def test_without_pysocks_a_socks_proxy_is_a_line_that_names_it(
    run_tap: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "socks.py").write_text("raise ImportError")
    config = {"dev_key": "k", "dev_secret": "s", "base_url": "https://balance.invalid"}
    environment = {
        "NO_PROXY": "",
        "ALL_PROXY": "socks5h://127.0.0.1:1",
        "PYTHONPATH": str(tmp_path),
    }
    run = run_tap(config, env=environment)
    assert run.status == 1
    (line,) = run.errors
    assert "balance.invalid is behind a SOCKS proxy, and the Python package PySocks is" in line
    assert line.endswith("to a proxy that uses HTTP.")


@pytest.mark.parametrize("base_url", ["HTTPS://localhost:{port}", "hTTps://LOCALHOST:{port}"])
def test_every_spelling_of_a_base_url_has_the_same_protection(
    run_tap: Callable[..., Run], base_url: str, tmp_path: Path
) -> None:
    with FaultServer([[start_tls("localhost"), *http(200, BODY)]]) as server:
        config = {
            "dev_key": "k", "dev_secret": "s", "base_url": base_url.format(port=server.port),
        }  # fmt: skip
        run = run_tap(config, env={"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")})
    assert run.errors == []
    assert run.records[0]["balance10000"] == 123456


def test_a_redirect_is_not_followed_to_another_host() -> None:
    with FaultServer([http(200, BODY)]) as other:
        there = http(302, headers={"Location": f"http://127.0.0.1:{other.port}/v1/balance"})
        with (
            FaultServer([there]) as server,
            pytest.raises(AccountError, match="HTTP 302: a redirect, which is never followed"),
        ):
            fetch(at(f"http://127.0.0.1:{server.port}"))
        assert other.accepted == []


def test_a_ca_bundle_that_cannot_be_read_is_named(run_tap: Callable[..., Run]) -> None:
    config = {"dev_key": "k", "dev_secret": "s", "base_url": "https://localhost:1"}
    run = run_tap(config, env={"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"})
    assert run.status == 1
    assert run.errors[0].startswith("REQUESTS_CA_BUNDLE: no certificates can be read")


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
