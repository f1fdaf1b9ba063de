"""The table of faults: what the API or the network does, and what the tap has to do about it.

Every fault is one account of a run whose other account is well. `line` is what the fault's error
line has to hold, "" where the balance has to come out all the same. The file is long because it is
data: one table, to be searched in one place.
"""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import gzip
import json
import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trustme
from documented import OTP, SMS
from fault_server import (
    AUTHORITY,
    chunked,
    drip,
    hang,
    http,
    read_request,
    reset,
    start_tls,
)

from tap_balance.sandbox import ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fault_server import Script, Wire

DEV_KEY = "fault-key"
DEV_SECRET = "fault-secret/päss?"
BASIC = base64.b64encode(f"{DEV_KEY}:{DEV_SECRET}".encode()).decode()
PROXY_PASSWORD = "fault-proxy-password"
SECRETS = {
    "the secret": DEV_SECRET,
    "the secret in a URL": "fault-secret%2Fp%C3%A4ss%3F",
    "the secret as JSON": "fault-secret/p\\u00e4ss?",
    "the secret in base64": base64.b64encode(DEV_SECRET.encode()).decode().rstrip("="),
    "the header": BASIC,
    "the header in a URL": BASIC.replace("+", "-").replace("/", "_"),
    "the proxy's password": PROXY_PASSWORD,
}
"""Each form in which a secret could get out."""

BODY = json.dumps(SMS).encode()
GOOD = (123456, 20000, 143456)
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, eq=False)
class Fault:
    """One fault and its expected outcome.

    Attributes:
        name: What happens, in a few words.
        scripts: What the server does with the first connection, the second, ...
        line: Words of the error line, or "" if the record is to be written.
        tries: How often the tap has to make a request.
        amounts: The x10000 integers of the record (paid, gift, total).
        warning: Words of a warning about a record that is written all the same.
        settings: Of the account's run, beside the usual ones.
        env: Variables of the run. In both, {port} is the server's, {ca} the authority's
            file, {folder} an empty folder, {dead} a port where nothing listens.
        base_url: Where the tap asks.
        connects: Whether the server sees one connection for each try.
        pause: Seconds that have to pass between the first and the second try.
    """

    name: str
    scripts: Sequence[Script]
    line: str = ""
    tries: int = 1
    amounts: tuple[int, int, int] = GOOD
    warning: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    base_url: str = "http://127.0.0.1:{port}"
    connects: bool = True
    pause: float = 0.0


def always(*script: bytes | Callable[[Wire], None]) -> list[Script]:
    return [script]


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


OK = "HTTP/1.1 200 OK"
LENGTH = f"Content-Length: {len(BODY)}"
CLOSE = "Connection: close"
WHOLE = head(OK, LENGTH, CLOSE) + BODY
BROKE = "broke before the response was complete"
LATE = "timed out waiting for a complete response from 127.0.0.1:"
NOT_JSON = "HTTP 200 with a body that is not JSON"
SHORT_TIME = {"request_timeout": 0.4}


def connection_faults() -> list[Fault]:
    cuts = {
        "before the request is read": (),
        "before the first byte": (read_request,),
        "within the status line": (read_request, b"HTTP/1.1 2"),
        "within the headers": (read_request, head(OK)[:-2] + b"Content-Len"),
        "after the headers": (read_request, head(OK, LENGTH)),
        "within the body": (read_request, WHOLE[:-20]),
    }
    stalls = dict(list(cuts.items())[1:])
    return [
        Fault(
            "refused",
            [],
            "refused the connection",
            2,
            base_url="http://127.0.0.1:{dead}",
            connects=False,
        ),
        Fault(
            "unknown host",
            [],
            "unknown host balance.invalid",
            2,
            base_url="https://balance.invalid",
            connects=False,
            env={"RES_OPTIONS": "timeout:1 attempts:1"},
        ),
        *(Fault(f"reset {when}", always(*steps, reset), BROKE, 2) for when, steps in cuts.items()),
        *(
            Fault(
                f"closed {when}",
                always(*steps),
                NOT_JSON if when == "within the headers" else BROKE,
                2,
            )
            for when, steps in cuts.items()
        ),
        *(
            Fault(f"silent {when}", always(*steps, hang), LATE, 2, settings=SHORT_TIME)
            for when, steps in stalls.items()
        ),
        Fault(
            "silent before the connection",
            [],
            "in time",
            2,
            settings=SHORT_TIME,
            base_url="http://127.0.0.1:{full}",
            connects=False,
        ),
        Fault(
            "a status line that drips for ever",
            always(read_request, b"HTTP/1.1 200 O", drip(b"K")),
            LATE,
            settings={"max_elapsed": 1},
        ),
        Fault(
            "headers that drip for ever",
            always(read_request, head(OK)[:-2], drip(b"X: y\r\n")),
            LATE,
            settings={"max_elapsed": 1},
        ),
        Fault(
            "interim answers for ever",
            always(read_request, drip(head("HTTP/1.1 100 Continue"))),
            LATE,
            settings={"max_elapsed": 1},
        ),
        Fault(
            "a body that drips for ever",
            always(read_request, head(OK, "Content-Length: 100000"), drip(b" ")),
            LATE,
            settings={"max_elapsed": 1},
        ),
        Fault(
            "a chunked body that drips for ever",
            always(
                read_request, head(OK, "Transfer-Encoding: chunked"), drip(chunked(b" ", end=b""))
            ),
            LATE,
            settings={"max_elapsed": 1},
        ),
        Fault(
            "a gzip body that drips for ever and yields nothing",
            always(
                read_request,
                head(OK, "Content-Encoding: gzip"),
                gzip.compress(b"")[:10],
                drip(b"\x00\x00\x00\xff\xff"),
            ),
            LATE,
            settings={"max_elapsed": 1},
        ),
        Fault("reset at first, then well", [(read_request, reset), http(200, BODY)], tries=2),
        Fault("closed at first, then well", [(read_request,), http(200, BODY)], tries=2),
        Fault(
            "silent at first, then well",
            [(read_request, hang), http(200, BODY)],
            tries=2,
            settings={"request_timeout": 2},
        ),
        Fault("byte by byte, but whole", always(read_request, *(bytes([b]) for b in WHOLE))),
        Fault(
            "an interim answer before the real one",
            always(read_request, head("HTTP/1.1 100 Continue"), WHOLE),
        ),
    ]


def read_hello(wire: Wire) -> None:
    wire.socket.recv(4096)


def over_tls(*script: bytes | Callable[[Wire], None], host: str = "localhost") -> list[Script]:
    return always(start_tls(host), *script)


def tls_faults() -> list[Fault]:
    trust = {"REQUESTS_CA_BUNDLE": "{ca}"}
    secure = partial(Fault, base_url="https://localhost:{port}")
    answer = http(200, BODY)
    stranger = trustme.CA()
    return [
        secure("certificate of an unknown CA", over_tls(*answer), "is not trusted"),
        secure(
            "certificate of another CA",
            always(start_tls("localhost", authority=stranger), *answer),
            "is not trusted",
            env=trust,
        ),
        secure(
            "expired certificate",
            always(start_tls("localhost", valid=(-30, -1)), *answer),
            "is not trusted (certificate has expired)",
            env=trust,
        ),
        secure(
            "certificate of tomorrow",
            always(start_tls("localhost", valid=(1, 30)), *answer),
            "is not trusted (certificate is not yet valid)",
            env=trust,
        ),
        secure(
            "certificate for another host",
            over_tls(*answer, host="elsewhere.example"),
            "is not trusted (Hostname mismatch",
            env=trust,
        ),
        secure("private CA in REQUESTS_CA_BUNDLE", over_tls(*answer), env=trust),
        secure("private CA in CURL_CA_BUNDLE", over_tls(*answer), env={"CURL_CA_BUNDLE": "{ca}"}),
        secure("private CA in SSL_CERT_FILE", over_tls(*answer), env={"SSL_CERT_FILE": "{ca}"}),
        secure(
            "REQUESTS_CA_BUNDLE before SSL_CERT_FILE",
            over_tls(*answer),
            env={"REQUESTS_CA_BUNDLE": "{ca}", "SSL_CERT_FILE": "{folder}/none.pem"},
        ),
        secure(
            "plain HTTP where TLS is due",
            always(read_hello, WHOLE),
            "no TLS connection to",
            2,
        ),
        secure("reset within the handshake", always(reset), "broke before", 2),
        secure("closed within the handshake", always(read_hello), "no TLS connection to", 2),
        secure("silent in the handshake", always(hang), "in time", 2, settings=SHORT_TIME),
        secure(
            "TLS that ends within a body of unknown length",
            over_tls(read_request, head(OK, CLOSE) + BODY[:-20]),
            NOT_JSON,
            2,
            env=trust,
        ),
        secure(
            "TLS that is silent within the body",
            over_tls(read_request, WHOLE[:-20], hang),
            "timed out waiting for a complete response",
            2,
            env=trust,
            settings=SHORT_TIME,
        ),
        secure(
            "TLS that drips for ever",
            over_tls(read_request, head(OK, "Content-Length: 100000"), drip(b" ")),
            "timed out waiting for a complete response",
            env=trust,
            settings={"max_elapsed": 1},
        ),
    ]


def through_proxy(*script: bytes | Callable[[Wire], None]) -> list[Script]:
    return always(
        read_connect, head("HTTP/1.1 200 Connection established"),
        start_tls("balance.invalid"), *script,
    )  # fmt: skip


def read_connect(wire: Wire) -> None:
    read_request(wire)
    connect = wire.server.requests.pop()
    assert connect.startswith(b"CONNECT balance.invalid:443 ")
    # The key is for the API alone, not for who carries the bytes.
    assert BASIC.encode() not in connect


def proxy_faults() -> list[Fault]:
    behind = partial(Fault, base_url="https://balance.invalid")
    proxy = {"HTTPS_PROXY": "http://127.0.0.1:{port}", "REQUESTS_CA_BUNDLE": "{ca}"}
    named = proxy | {"HTTPS_PROXY": f"http://user:{PROXY_PASSWORD}@127.0.0.1:{{port}}"}
    answer = http(200, BODY)
    return [
        behind("through HTTPS_PROXY", through_proxy(*answer), env=proxy),
        behind("through a proxy with a password", through_proxy(*answer), env=named),
        behind(
            "through ALL_PROXY",
            through_proxy(*answer),
            env={"ALL_PROXY": proxy["HTTPS_PROXY"], "REQUESTS_CA_BUNDLE": "{ca}"},
        ),
        behind(
            "a proxy that refuses the password",
            always(read_connect, head("HTTP/1.1 407 Proxy Authentication Required", CLOSE)),
            "the proxy did not connect",
            2,
            env=named,
        ),
        behind(
            "a proxy that repeats the password",
            always(read_connect, head(f"HTTP/1.1 407 user:{PROXY_PASSWORD} is wrong", CLOSE)),
            "the proxy did not connect",
            2,
            env=named,
        ),
        behind(
            "a proxy that finds no host",
            always(read_connect, head("HTTP/1.1 502 Bad", CLOSE)),
            "the proxy did not connect",
            2,
            env=proxy,
        ),
        behind("a proxy that hangs up", always(read_connect), BROKE, 2, env=proxy),
        behind(
            "a proxy that is silent",
            always(read_connect, hang),
            "in time",
            2,
            env=proxy,
            settings=SHORT_TIME,
        ),
        behind(
            "a proxy that is down",
            [],
            "the proxy did not connect",
            2,
            connects=False,
            env=proxy | {"HTTPS_PROXY": "http://127.0.0.1:{dead}"},
        ),
        behind(
            "a proxy that reads along",
            always(
                read_connect,
                head("HTTP/1.1 200 Connection established"),
                start_tls("balance.invalid", authority=trustme.CA()),
                *answer,
            ),
            "is not trusted",
            env=proxy,
        ),
        behind(
            "a proxy that is no URL",
            [],
            "no request can be sent to balance.invalid",
            connects=False,
            env=proxy | {"HTTPS_PROXY": f"http://user:{PROXY_PASSWORD}@:x"},
        ),
        behind(
            "a SOCKS proxy that is down",
            [],
            "the proxy did not connect to balance.invalid",
            2,
            connects=False,
            env=proxy | {"HTTPS_PROXY": "socks5h://127.0.0.1:{dead}"},
        ),
        behind(
            "a proxy of a kind that is not supported",
            [],
            "no request can be sent to balance.invalid",
            connects=False,
            env=proxy | {"HTTPS_PROXY": "gopher://127.0.0.1:{dead}"},
        ),
        behind(
            "NO_PROXY for the host",
            [],
            "unknown host balance.invalid",
            2,
            connects=False,
            env=proxy | {"NO_PROXY": "balance.invalid", "RES_OPTIONS": "timeout:1 attempts:1"},
        ),
        Fault(
            "loopback goes past the proxy",
            always(*answer),
            env={"HTTP_PROXY": "http://127.0.0.1:{dead}", "ALL_PROXY": "http://127.0.0.1:{dead}"},
        ),
        Fault("a .netrc with another key", always(*answer), env={"NETRC": "{folder}/.netrc"}),
        Fault("a .netrc at home with another key", always(*answer), env={"HOME": "{folder}"}),
    ]


def framing_faults() -> list[Fault]:
    packed = gzip.compress(BODY)
    corrupt = packed[:15] + bytes(byte ^ 0xFF for byte in packed[15:25]) + packed[25:]
    padded = BODY + b" " * MEBIBYTE
    gzipped = {"Content-Encoding": "gzip"}
    in_chunks = (read_request, head(OK, "Transfer-Encoding: chunked", CLOSE))
    unzips_wrongly = "sent a response that cannot be decompressed"
    twenty = BODY
    for _ in range(20):
        twenty = gzip.compress(twenty)
    return [
        Fault("a body shorter than Content-Length", always(read_request, WHOLE[:-1]), BROKE, 2),
        Fault(
            "a body longer than Content-Length",
            always(*http(200, BODY, {"Content-Length": str(len(BODY) - 9)})),
            NOT_JSON,
            2,
        ),
        Fault(
            "two Content-Lengths",
            always(*http(200, BODY, [("Content-Length", "7"), ("Content-Length", str(len(BODY)))])),
            "sent a malformed HTTP response",
            2,
        ),
        Fault(
            "a negative Content-Length",
            always(*http(200, BODY, {"Content-Length": "-1"})),
            "",
        ),
        Fault("a Content-Length in words", always(*http(200, BODY, {"Content-Length": "all"}))),
        Fault("no Content-Length, closed at the end", always(read_request, head(OK, CLOSE), BODY)),
        Fault("in two chunks", always(*in_chunks, chunked(BODY[:9], BODY[9:]))),
        Fault(
            "cut within a chunk",
            always(*in_chunks, chunked(BODY, end=b"")[:-9]),
            BROKE,
            2,
        ),
        Fault("cut before the last chunk", always(*in_chunks, chunked(BODY, end=b"")), BROKE, 2),
        Fault(
            "a chunk of no size",
            always(*in_chunks, b"x\r\n" + BODY + b"\r\n0\r\n\r\n"),
            BROKE,
            2,
        ),
        Fault(
            "a chunk of negative size",
            always(*in_chunks, b"-5\r\n" + BODY + b"\r\n0\r\n\r\n"),
            BROKE,
            2,
        ),
        Fault(
            "a chunk of monstrous size",
            always(*in_chunks, b"f" * 40 + b"\r\n" + BODY),
            BROKE,
            2,
        ),
        Fault(
            "a chunk's size of 100,000 digits",
            always(*in_chunks, b"1" * 100_000, b"\r\n"),
            BROKE,
            2,
        ),
        Fault("gzip", always(*http(200, packed, gzipped))),
        Fault("deflate", always(*http(200, zlib.compress(BODY), {"Content-Encoding": "deflate"}))),
        Fault("corrupt gzip", always(*http(200, corrupt, gzipped)), unzips_wrongly, 2),
        Fault("gzip cut short", always(*http(200, packed[:-20], gzipped)), NOT_JSON, 2),
        Fault("plain text called gzip", always(*http(200, BODY, gzipped)), unzips_wrongly, 2),
        Fault(
            "gzip that unpacks to more than 1 MiB",
            always(*http(200, gzip.compress(padded), gzipped)),
            "longer than 1048576 bytes",
        ),
        Fault(
            "gzip that unpacks to 1 GiB",
            always(*http(200, gzip.compress(b" " * MEBIBYTE) * 1024, gzipped)),
            "longer than 1048576 bytes",
        ),
        Fault(
            "gzip, twenty times over",
            always(*http(200, twenty, {"Content-Encoding": ", ".join(["gzip"] * 20)})),
            unzips_wrongly,
            2,
        ),
        Fault(
            "an encoding that nobody knows",
            always(*http(200, b"xyz", {"Content-Encoding": "rot13"})),
            NOT_JSON,
            2,
        ),
        Fault("a body over 1 MiB", always(*http(200, padded)), "longer than 1048576 bytes"),
        Fault("a 502 with such a body", always(*http(502, padded)), "HTTP 502: bad gateway", 2),
        Fault("a body of exactly 1 MiB", always(*http(200, padded[:MEBIBYTE]))),
        Fault(
            "an endless body",
            always(read_request, head(OK), drip(b" " * MEBIBYTE, pause=0)),
            "longer than 1048576 bytes",
        ),
        Fault("no body", always(*http(200)), NOT_JSON, 2),
        Fault("204", always(*http(204)), "HTTP 204: an unexpected status"),
        Fault("204 with a balance", always(*http(204, BODY)), "HTTP 204: an unexpected status"),
        Fault("205", always(*http(205)), "HTTP 205: an unexpected status"),
        Fault("no HTTP at all", always(read_request, b"SSH-2.0-OpenSSH_9.7\r\n"), BROKE, 2),
        Fault("a body without a head", always(read_request, BODY), BROKE, 2),
        Fault("HTTP/9.9", always(read_request, head("HTTP/9.9 200 OK", LENGTH), BODY), BROKE, 2),
        Fault(
            "a status in words",
            always(read_request, head("HTTP/1.1 fine OK", LENGTH), BODY),
            BROKE,
            2,
        ),
        Fault(
            "a status line of 100,000 bytes",
            always(read_request, head(OK + "K" * 100_000), BODY),
            BROKE,
            2,
        ),
        Fault(
            "a header of 100,000 bytes",
            always(*http(200, BODY, {"X-Long": "x" * 100_000})),
            BROKE,
            2,
        ),
        Fault(
            "a thousand headers",
            always(*http(200, BODY, [(f"X-{index}", "x") for index in range(1000)])),
            BROKE,
            2,
        ),
        Fault(
            "a header without a colon",
            always(read_request, head(OK, "colonless", LENGTH), BODY),
        ),
        Fault("a header with a NUL", always(*http(200, BODY, {"X": "\0"}))),
        Fault("headers that are not ASCII", always(*http(200, BODY, {"X": "\xff\xe9"}))),
        Fault(
            "a second answer that nobody asked for",
            always(
                read_request, head(OK, LENGTH) + BODY, WHOLE.replace(b"123456", b"999999"), hang
            ),
        ),
        Fault(
            "HTTP/1.0",
            always(read_request, head("HTTP/1.0 200 OK", LENGTH), BODY),
        ),
    ]


def answer(body: Any, **headers: str) -> list[Script]:  # noqa: ANN401
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return always(*http(200, data, headers))


def changed(field: str, written: str) -> bytes:
    """Write the documented answer with one value as `written`."""
    return "{{{}}}".format(
        ", ".join(
            f'"{name}": {written if name == field else json.dumps(value)}'
            for name, value in SMS.items()
        )
    ).encode()


def content_faults() -> list[Fault]:
    no_balance = "HTTP 200, but not a balance: "
    whole, absent = ("balance10000", "gift_balance10000", "total_balance10000"), "missing"
    wrong = {
        "null": "null", "true": "true", "a fraction": "123456.5", "text": '"plenty"',
        "a list": "[123456]", "an object": "{}", "empty text": '""', "text with a space": '" 1"',
        "1e400": "1e400", "a huge exponent": "1e99999999999999999999",
        "next to nothing": "1e-9999999", "5,000 digits": "7" * 5000,
        "one past 64 bits": str(2**63), "one below 64 bits": str(-(2**63) - 1),
        "a fraction beyond a double": "123456.00000000000000000001",
        "digits of another script": '"\u0661\u0662"', "hexadecimal text": '"0x1E240"',
        "text with a fraction": '"123456.5"', "infinity as text": '"Infinity"',
    }  # fmt: skip
    right = {
        "123456.0": "123456.0", "text of digits": '"123456"', "1.23456e5": "1.23456e5",
    }  # fmt: skip
    no_json = {
        "NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity", "a leading zero": "0123",
        "a plus": "+1", "hexadecimal": "0x1E240", "nothing": "",
    }  # fmt: skip
    twins = ("balance", "gift_balance", "total_balance")
    otp = {"product": "otp"}
    zero = dict.fromkeys(SMS, 0)
    return [
        *(
            Fault(f"{field} is {kind}", answer(changed(field, written)), f"{no_balance}`{field}`")
            for kind, written in wrong.items()
            for field in whole[: 3 if kind in {"null", "true", "a fraction", "text"} else 1]
        ),
        *(
            Fault(
                f"{field} is {absent}",
                answer({name: value for name, value in SMS.items() if name != field}),
                f"{no_balance}`{field}` is missing",
            )
            for field in whole
        ),
        *(
            Fault(f"balance10000 is {kind}", answer(changed("balance10000", written)))
            for kind, written in right.items()
        ),
        *(
            Fault(f"balance10000 is {kind}", answer(changed("balance10000", written)), NOT_JSON, 2)
            for kind, written in no_json.items()
        ),
        *(
            Fault(
                f"{field} is {kind}",
                answer(changed(field, written)),
                warning=f"`{field}` does not agree with `{field}10000`",
            )
            for field in twins
            for kind, written in {
                "null": "null",
                "true": "true",
                "text": '"12.3456"',
                "another amount": "12.3457",
                "1e400": "1e400",
            }.items()
        ),
        *(
            Fault(
                f"{field} is {absent}",
                answer({name: value for name, value in SMS.items() if name != field}),
                warning=f"`{field}` does not agree with `{field}10000`",
            )
            for field in twins
        ),
        Fault(
            "a total that is not the sum",
            answer(changed("total_balance10000", "143457")),
            warning="the total is not the sum",
            amounts=(123456, 20000, 143457),
        ),
        Fault(
            "2^63-1 and -2^63",
            answer(
                {
                    "balance10000": 2**63 - 1,
                    "gift_balance10000": -(2**63),
                    "total_balance10000": -1,
                    "balance": 922337203685477.5807,
                    "gift_balance": -922337203685477.5808,
                    "total_balance": -0.0001,
                }
            ),
            amounts=(2**63 - 1, -(2**63), -1),
        ),
        Fault("zero, as the API says so", answer(zero), amounts=(0, 0, 0)),
        Fault("a field more", answer(SMS | {"note": [None, {"a": 1.5}]})),
        Fault("HTML", answer(b"<html>Please log in</html>"), NOT_JSON, 2),
        Fault(
            "HTML called JSON",
            always(*http(200, b"<html>Please log in</html>", {"Content-Type": "application/json"})),
            NOT_JSON,
            2,
        ),
        Fault("JSON called HTML", always(*http(200, BODY, {"Content-Type": "text/html"}))),
        Fault("HTML at first, then a balance", [http(200, b"<html>"), http(200, BODY)], tries=2),
        Fault("an empty object", answer({}), f"{no_balance}`balance10000` is missing"),
        *(
            Fault(
                f"only {json.dumps(body)}",
                answer(body),
                f"{no_balance}the response is not a JSON object",
            )
            for body in ([], [SMS], "balance", None, 123456, 12.3456, True)
        ),
        Fault(
            "an error envelope",
            answer({"code": 2001, "message": "invalid token"}),
            "HTTP 200, code 2001 (invalid token): an error instead of a balance",
        ),
        Fault(
            "an error envelope around zeros",
            answer(zero | {"code": 2001, "message": "invalid token"}),
            "HTTP 200, code 2001 (invalid token): an error instead of a balance",
        ),
        Fault(
            "an envelope with data",
            answer({"code": 0, "message": "ok", "data": SMS}),
            "HTTP 200, code 0 (ok): an error instead of a balance",
        ),
        Fault(
            "an envelope with only data",
            answer({"data": SMS}),
            f"{no_balance}`balance10000` is missing",
        ),
        Fault(
            "another envelope",
            answer({"error": {"code": "X", "message": 5}}),
            f"{no_balance}`balance10000` is missing",
        ),
        Fault(
            "the otp product's body",
            answer(OTP),
            "the response has the otp format, but `product` is sms",
        ),
        Fault(
            "the sms product's body",
            answer(SMS),
            "the response has the sms format, but `product` is otp",
            settings=otp,
        ),
        Fault(
            "an otp body",
            answer(OTP),
            amounts=(1234500, 10000, 1244500),
            settings=otp,
        ),
        *(
            Fault(
                f"otp: {field} is {kind}",
                answer({**OTP, field: value}),
                f"{no_balance}`{field}`",
                settings=otp,
            )
            for field, kind, value in (
                ("balance", "null", None),
                ("balance", "true", True),
                ("balance", "text", "plenty"),
                ("balance", "of five places", "123.45001"),
                ("balance", "of no digits", "."),
                ("balance", "past 64 bits", "922337203685477.5808"),
                ("balance", "in groups", "1,234.0000"),
                ("gift_balance", "null", None),
                ("total_balance", "empty", ""),
                ("currency", "null", None),
                ("currency", "unknown", "Dollar"),
            )
        ),
        *(
            Fault(
                f"otp: {field} is {absent}",
                answer({name: value for name, value in OTP.items() if name != field}),
                f"{no_balance}`{field}`",
                settings=otp,
            )
            for field in OTP
        ),
        Fault("100,000 lists deep", answer(b"[" * 100_000 + b"]" * 100_000), NOT_JSON, 2),
        Fault(
            "100,000 objects deep", answer(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), NOT_JSON, 2
        ),
        Fault(
            "a balance, and 100,000 lists deep beside it",
            answer(BODY[:-1] + b', "note": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
            NOT_JSON,
            2,
        ),
        Fault(
            "duplicate keys",
            answer(b'{"balance10000": 1, ' + BODY[1:]),
            f"{no_balance}the response repeats a name",
        ),
        Fault("UTF-8 with a BOM", answer(b"\xef\xbb\xbf" + BODY)),
        Fault("UTF-16", answer(BODY.decode().encode("utf-16"))),
        Fault("not UTF-8", answer(BODY[:-1] + b', "note": "\xff\xfe"}'), NOT_JSON, 2),
        Fault("two documents", answer(BODY + b"\n" + BODY), NOT_JSON, 2),
        Fault("text after the document", answer(BODY + b"</html>"), NOT_JSON, 2),
        Fault("a document cut short, with the right length", answer(BODY[:-1]), NOT_JSON, 2),
    ]


def fails_then_works(headers: dict[str, str], status: int = 429) -> list[Script]:
    return [http(status, b"", headers), http(200, BODY)]


def at(seconds: float) -> Script:
    """Answer 429 with a date N seconds from then."""

    def step(wire: Wire) -> None:
        moment = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=seconds)
        date = email.utils.format_datetime(moment, usegmt=True)
        wire.send(head("HTTP/1.1 429 Slow", f"Retry-After: {date}", "Content-Length: 0", CLOSE))

    return [read_request, step]


def envelope(message: str, code: object = 2001) -> bytes:
    return json.dumps({"code": code, "message": message}).encode()


def status_faults() -> list[Fault]:
    refused = "authentication failed"
    dates = "Fri, 31 Feb 2026 25:61:61 GMT", "Sat, 01 Jan 0000 00:00:00 GMT"
    beyond = "longer than max_elapsed"
    return [
        *(
            Fault(
                f"{status}, code {code}",
                always(*http(status, envelope(message, code))),
                f"HTTP {status}, code {code} ({message}): ",
                2 if status >= 500 else 1,
            )
            for status, code, message in ERRORS.values()
        ),
        *(
            Fault(
                f"{status} with a code that is not in the table",
                always(*http(status, envelope("news", 7777))),
                f"HTTP {status}, code 7777 (news): {meaning}",
                tries,
            )
            for status, meaning, tries in (
                (400, "an unexpected status", 1),
                (401, refused, 1),
                (403, "access refused", 1),
                (404, "no such address", 1),
                (418, "an unexpected status", 1),
                (429, "too many requests", 2),
                (500, "the server failed", 2),
                (509, "the server failed", 2),
                (599, "the server failed", 2),
            )
        ),
        *(
            Fault(
                f"{status} to {where}",
                always(*http(status, BODY, {"Location": location})),
                f"HTTP {status}: a redirect, which is never followed",
            )
            for status in (300, 301, 302, 303, 307, 308)
            for where, location in (
                ("the same host", "/v1/balance/"),
                ("another host", "https://elsewhere.example/v1/balance"),
            )
        ),
        Fault("304", always(*http(304)), "HTTP 304: a redirect"),
        *(
            Fault(f"302 to {where}", always(*http(302, b"away!", {"Location": to})), "HTTP 302: ")
            for where, to in (
                ("what is no UTF-8", "http://x/\xff\xfe"),
                ("what is no URL", "http://[::1"),
                ("nowhere", ""),
                ("itself", "/v1/balance"),
            )
        ),
        Fault(
            "302 with 1 GiB of gzip",
            always(
                *http(
                    302,
                    gzip.compress(b" " * MEBIBYTE) * 1024,
                    {"Content-Encoding": "gzip", "Location": "/"},
                )
            ),
            "HTTP 302: a redirect, which is never followed",
        ),
        Fault(
            "a cookie that cannot be parsed",
            always(
                *http(
                    200,
                    BODY,
                    {"Set-Cookie": f"a=b; expires=Mon, 01-Jan-{'9' * 5000} 00:00:00 GMT"},
                )
            ),
        ),
        *(
            Fault(f"{status} without a body", always(*http(status)), f"HTTP {status}: ", tries)
            for status, tries in (
                (201, 1),
                (400, 1),
                (401, 1),
                (403, 1),
                (404, 1),
                (405, 1),
                (407, 1),
                (408, 2),
                (410, 1),
                (418, 1),
                (425, 2),
                (429, 2),
                (451, 1),
                (500, 2),
                (501, 1),
                (502, 2),
                (503, 2),
                (504, 2),
                (505, 1),
                *((status, 2) for status in (520, 522, 524, 529, 530)),
                (999, 1),
            )
        ),
        Fault("201 with a balance", always(*http(201, BODY)), "HTTP 201: an unexpected status"),
        Fault("206 with a balance", always(*http(206, BODY)), "HTTP 206: an unexpected status"),
        Fault("500 with a balance", always(*http(500, BODY)), "HTTP 500: the server failed", 2),
        Fault("101", always(read_request, head("HTTP/1.1 101 Switch", "Upgrade: x")), BROKE, 2),
        Fault("500 at first, then well", fails_then_works({}, 500), tries=2),
        Fault(
            "503 with Retry-After, then well",
            fails_then_works({"Retry-After": "1"}, 503),
            tries=2,
            pause=1.0,
        ),
        Fault("Retry-After in seconds", fails_then_works({"Retry-After": "2"}), tries=2, pause=2.0),
        Fault("Retry-After as a date", [at(3), http(200, BODY)], tries=2, pause=1.5),
        Fault("Retry-After as a date in the past", [at(-3600), http(200, BODY)], tries=2),
        *(
            Fault(f"Retry-After: {text[:40]!r}", fails_then_works({"Retry-After": text}), tries=2)
            for text in ("0", "-5", "soon", "", "1.5", "0x10", "\xb2", "1 s", "1, 2", *dates)
        ),
        *(
            Fault(f"Retry-After: {text[:40]!r}", fails_then_works({"Retry-After": text}), beyond)
            for text in (
                "121",
                "3600",
                "9" * 30,
                "9" * 5000,
                "Fri, 31 Dec 9999 23:59:59 GMT",
            )
        ),
        *(
            Fault(
                f"{status} with a body that is {kind}",
                always(*http(status, body)),
                f"HTTP {status}: ",
                tries,
            )
            for status, tries in ((401, 1), (502, 2))
            for kind, body in (
                ("HTML", b"<html><h1>Unauthorized</h1></html>"),
                ("20 kB", b"<p>" * 7_000),
                ("not UTF-8", b"\xff\xfe\xfd"),
                ("100,000 lists deep", b"[" * 100_000),
                ("a JSON list", b"[1]"),
                ("a message that is a number", b'{"message": 5}'),
                ("a code that is true", b'{"code": true}'),
                ("a code that is text", b'{"code": "x"}'),
            )
        ),
        Fault(
            "401 with a message of 20 kB",
            always(*http(401, envelope("x" * 20_000))),
            "xxx...): ",
        ),
        Fault(
            "401 with a message of several lines",
            always(*http(401, envelope("one\r\ntwo\x1b[31m\u2028three"))),
            "(one two [31m three): ",
        ),
        Fault(
            "401 with a message in Chinese",
            always(*http(401, envelope("令牌无效"))),
            "(令牌无效): ",
        ),
        Fault(
            "401 with a code of 5,000 digits",
            always(*http(401, b'{"code": 1' + b"0" * 5000 + b"}")),
            refused,
        ),
        *(
            Fault(
                f"{status} that repeats {form} in {where}",
                always(*http(status, body, headers, reason)),
                f"HTTP {status}",
                tries,
            )
            for status, tries in ((401, 1), (503, 2))
            for form, secret in list(SECRETS.items())[:-1]
            for where, body, headers, reason in (
                ("its message", envelope(f"bad {secret} here"), {}, "No"),
                ("its page", f"<html>{secret}</html>".encode(), {}, "No"),
                (
                    "its head",
                    b"",
                    {
                        "WWW-Authenticate": secret.encode().decode("latin-1"),
                        "Set-Cookie": f"a={secret}".encode().decode("latin-1"),
                    },
                    secret.encode().decode("latin-1"),
                ),
            )
        ),
        Fault(
            "200 that repeats the secret",
            answer({"message": DEV_SECRET, DEV_SECRET: BASIC}),
            "HTTP 200, but not a balance",
        ),
        Fault(
            "302 that repeats the header",
            always(*http(302, b"", {"Location": f"http://elsewhere.example/{BASIC}"})),
            "HTTP 302",
        ),
        Fault(
            "401 that repeats the secret at the cut",
            always(*http(401, envelope("x" * 150 + DEV_SECRET))),
            "HTTP 401",
        ),
    ]


FAULTS: dict[str, list[Fault]] = {
    "connection": connection_faults(),
    "tls": tls_faults(),
    "proxy": proxy_faults(),
    "framing": framing_faults(),
    "content": content_faults(),
    "status": status_faults(),
}

CA_PEM: bytes = AUTHORITY.cert_pem.bytes()
