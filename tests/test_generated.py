"""Generated input: whatever the API answers or the settings say, no wrong row, no secret, no crash.

Each case is a whole run of the command, in this process for the sake of speed. By default the
cases are the same every time; `pytest --hypothesis-profile=explore tests/test_generated.py`
looks at new ones.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import re
import signal
import zlib
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import requests_mock
from documented import OTP, SMS
from fault_server import FaultServer, http, read_request
from faults import BODY, DEV_KEY, DEV_SECRET, GOOD, SECRETS
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import NO_PROXY
from tap_process import Run

from tap_balance.process import run as run_process
from tap_balance.settings import SETTINGS
from tap_balance.shutdown import Shutdown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from conftest import Tally
    from hypothesis.strategies import SearchStrategy

pytestmark = pytest.mark.slow

BODIES, HEADERS, CONFIGS = 6_000, 2_500, 2_500
MARK = "hush-"
"""What every generated value of a setting holds, so that showing one is noticed."""

INTEGERS = ("balance10000", "gift_balance10000", "total_balance10000")
DECIMALS = ("balance", "gift_balance", "total_balance")


def test_at_least_10_000_cases_are_generated() -> None:
    assert BODIES + HEADERS + CONFIGS >= 10_000


@pytest.fixture(scope="module", autouse=True)
def untouched_process() -> Iterator[None]:
    """Give back what a run changes in its process, and let no retry wait."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    propagate = {name: logging.getLogger(name).propagate for name in ("urllib3", "requests")}
    with (
        mock.patch.object(Shutdown, "sleep"),
        mock.patch.dict(os.environ, NO_PROXY),
        mock.patch.object(logging, "shutdown"),
    ):
        yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    for name, value in propagate.items():
        logging.getLogger(name).propagate = value


def run_here(*arguments: str) -> Run:
    root = logging.getLogger()
    before, root.handlers[:] = list(root.handlers), []
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        status = run_process(arguments)
    root.handlers[:] = before
    return Run(status, stdout.getvalue(), stderr.getvalue())


def check(run: Run, accounts: int = 1) -> None:
    """Check what holds for every run."""
    assert run.status in {0, 1}
    assert "Traceback" not in run.stderr
    assert "This is a defect" not in run.stderr
    assert bool(run.errors) == (run.status == 1)
    records = run.records
    assert len(records) <= accounts
    kinds = [message["type"] for message in run.messages]
    if kinds:
        assert kinds == ["SCHEMA", *["RECORD"] * len(records), "STATE"]
    for record in records:
        for whole, decimal in zip(INTEGERS, DECIMALS, strict=True):
            assert type(record[whole]) is int
            assert -(2**63) <= record[whole] < 2**63
            assert re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]{4}", record[decimal])
            assert Fraction(record[decimal]) == Fraction(record[whole], 10_000)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer([()]) as server:
        yield server


@pytest.fixture(scope="module", params=["sms", "otp"])
def product(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config_for(server: FaultServer, folder: Path, **more: object) -> str:
    path = folder / "config.json"
    url = f"http://127.0.0.1:{server.port}"
    config = {"dev_key": DEV_KEY, "dev_secret": DEV_SECRET, "base_url": url, "max_attempts": 2}
    path.write_text(json.dumps(config | more))
    return str(path)


# --- bodies -------------------------------------------------------------------------------------

in_64_bits = st.integers(-(2**63), 2**63 - 1)
exponents = st.integers(-30, 30)
numbers = st.one_of(
    in_64_bits.map(str),
    st.integers(-3, 3).map(lambda n: str(2**63 + n)),
    st.integers(-3, 3).map(lambda n: str(-(2**63) + n)),
    st.integers(-200_000, 200_000).map(str),
    st.builds("{}.{}".format, in_64_bits, st.text("0123456789", min_size=1, max_size=6)),
    st.builds("{}.{}".format, in_64_bits, st.integers(1, 60).map(lambda n: "0" * n)),
    st.builds("{}e{}".format, st.integers(-999, 999), exponents),
    st.builds("{}.{}E{}".format, st.integers(0, 99), st.integers(0, 99), exponents),
    st.floats(allow_nan=True).map(repr),
    st.sampled_from(
        [
            "-0",
            "0.0",
            "-0.0",
            "1e400",
            "1e-400",
            "1e-9999999",
            "1e9999999",
            "NaN",
            "Infinity",
            "-Infinity",
            "01",
        ]
    ),
    st.integers(41, 6000).map(lambda n: "9" * n),
)
junk = st.one_of(
    st.sampled_from(["null", "true", "false", "[]", "{}", '""', '"\\ud800"', "[1]", '{"a": 1}']),
    st.text(max_size=12).map(json.dumps),
    st.text("0123456789.-+ _eE\u0661\uff11", max_size=24).map(json.dumps),
)
values = st.one_of(numbers, numbers, numbers.map('"{}"'.format), junk)
names = st.one_of(
    st.sampled_from([*SMS, *SMS, "currency", "code", "message", "data"]), st.text(max_size=5)
)


def written(pairs: Sequence[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}"


sms_pairs = st.tuples(*(st.tuples(st.just(name), values) for name in SMS))
near_sms = st.builds(
    lambda good, bad: [(n, bad.get(n, v)) for n, v in good],
    st.just([(name, json.dumps(value)) for name, value in SMS.items()]),
    st.dictionaries(st.sampled_from(list(SMS)), values, max_size=2),
)
near_otp = st.builds(
    lambda good, bad: [(n, bad.get(n, v)) for n, v in good],
    st.just([(name, json.dumps(value)) for name, value in OTP.items()]),
    st.dictionaries(st.sampled_from(list(OTP)), values, max_size=2),
)
some_pairs = st.lists(st.tuples(names, values), max_size=8)
more_pairs = st.builds(lambda a, b: [*a, *b], near_sms, some_pairs)
documents = st.one_of(near_sms, near_otp, sms_pairs, some_pairs, more_pairs).map(written)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=12,
).map(json.dumps)
encodings = st.sampled_from(["utf-8"] * 5 + ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-7"])
encoded = st.builds(
    lambda text, encoding: text.encode(encoding, "surrogatepass"), documents | any_json, encodings
)
cut = st.builds(lambda body, at: body[: at % (len(body) + 1)], encoded, st.integers(0, 10_000))
bodies = st.one_of(
    encoded,
    encoded,
    cut,
    st.builds(lambda a, b: a + b, encoded, st.binary(min_size=1, max_size=4)),
    st.binary(max_size=60),
)


class Pairs(list[tuple[str, Any]]):
    """An object with its names as often as they are in it."""


def amounts_in(body: bytes, product: str) -> tuple[int, ...] | None:
    """Read the amounts in a way of its own: exact fractions, no limits, nothing forgiven."""

    def number(text: str) -> Fraction | None:
        exponent = re.search(r"[eE]([+-]?[0-9]+)$", text)
        return None if exponent and abs(int(exponent[1])) > 400 else Fraction(text)

    try:
        found = json.loads(
            body, parse_int=number, parse_float=number, parse_constant=str, object_pairs_hook=Pairs
        )
    except ValueError:
        return None
    if not isinstance(found, Pairs) or len(dict(found)) != len(found):
        return None
    answer = dict(found)
    scale, fields = (1, INTEGERS) if product == "sms" else (10_000, DECIMALS)
    amounts = []
    for field in fields:
        value = answer.get(field)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value, re.ASCII):
            value = Fraction(value)
        if not isinstance(value, Fraction) or (value * scale).denominator != 1:
            return None
        amounts.append(int(value * scale))
    return tuple(amounts) if all(-(2**63) <= value < 2**63 for value in amounts) else None


def test_a_body_becomes_a_record_only_if_it_holds_the_amounts(
    server: FaultServer, tmp_path: Path, tally: Tally, product: str
) -> None:
    path = config_for(server, tmp_path, product=product)

    @settings(max_examples=BODIES // 2)
    @given(bodies)
    def a_run_is_right(body: bytes) -> None:
        tally.generated += 1
        server.scripts = [http(200, body)]
        run = run_here("--config", path)
        check(run)
        if run.status == 0:
            (record,) = run.records
            right = tuple(record[name] for name in INTEGERS) == amounts_in(body, product)
            tally.wrong_rows += not right
            assert right
        else:
            assert run.records == []

    a_run_is_right()


@settings(max_examples=500)
@given(amounts=st.tuples(in_64_bits, in_64_bits, in_64_bits), data=st.data())
def test_every_amount_of_64_bits_comes_out(
    server: FaultServer,
    tmp_path_factory: pytest.TempPathFactory,
    tally: Tally,
    amounts: tuple[int, int, int],
    data: st.DataObject,
) -> None:
    tally.generated += 1
    pairs = [(name, str(value)) for name, value in zip(INTEGERS, amounts, strict=True)]
    pairs += [(name, repr(value / 10_000)) for name, value in zip(DECIMALS, amounts, strict=True)]
    body = written(data.draw(st.permutations(pairs)))
    server.scripts = [http(200, body.encode())]
    run = run_here("--config", config_for(server, tmp_path_factory.getbasetemp()))
    check(run)
    assert run.status == 0
    assert [tuple(record[name] for name in INTEGERS) for record in run.records] == [amounts]


# --- headers ------------------------------------------------------------------------------------

header_text = st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=30),
    st.integers(-(10**6), 10**12).map(str),
    st.text("0123456789-,;= \t", max_size=12),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.sampled_from([
        "chunked", "gzip", "deflate", "br", "zstd", "identity", "gzip, chunked", "close",
        "keep-alive", "bytes 0-5/10", "text/html; charset=utf-16", "0", str(len(BODY)),
        str(2**64), "Fri, 31 Dec 9999 23:59:59 GMT", "http://[", "//", "/v1/balance",
        DEV_SECRET.encode().decode("latin-1"), *list(SECRETS.values())[1:],
    ]),
)  # fmt: skip
header_names = st.one_of(
    st.sampled_from([
        "Retry-After", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Location",
        "Content-Type", "Connection", "Set-Cookie", "Content-Range", "Trailer", "Upgrade",
        "WWW-Authenticate", "Date",
    ]),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=10),
)  # fmt: skip
heads = st.builds(
    lambda version, status, reason, pairs, end: (
        f"{version} {status} {reason}\r\n".encode("latin-1")
        + b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in pairs)
        + end
    ),
    st.sampled_from(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2", "HTTP/1.1 ", "ICY", ""]),
    st.one_of(
        st.just(200),
        st.just(200),
        st.sampled_from([401, 429, 500, 503, 302, 204, 304, 206, 100, 101, 103]),
        st.integers(-1, 1200),
    ),
    header_text,
    st.lists(st.tuples(header_names, header_text), max_size=5),
    st.sampled_from([b"\r\n"] * 8 + [b"", b"\n", b"\r\n\r\n"]),
)
payloads = st.sampled_from([
    BODY, BODY, gzip.compress(BODY), zlib.compress(BODY), b"",
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    json.dumps({"code": 2001, "message": f"no {DEV_SECRET}"}).encode(),
])  # fmt: skip


def test_no_head_makes_a_wrong_row_or_a_crash(
    server: FaultServer, tmp_path: Path, tally: Tally
) -> None:
    path = config_for(server, tmp_path, request_timeout=5)

    @settings(max_examples=HEADERS)
    @given(heads, payloads)
    def a_run_is_right(head: bytes, payload: bytes) -> None:
        tally.generated += 1
        server.scripts = [(read_request, head + payload)]
        run = run_here("--config", path)
        check(run)
        found = [form for form, secret in SECRETS.items() if secret in run.stdout + run.stderr]
        tally.secrets += len(found)
        assert found == []
        if run.status == 0:
            (record,) = run.records
            right = tuple(record[name] for name in INTEGERS) == GOOD
            tally.wrong_rows += not right
            assert right

    a_run_is_right()


# --- settings -----------------------------------------------------------------------------------

marked = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(MARK.__add__)
rubbish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | marked,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
urls = st.one_of(
    st.sampled_from([
        "https://balance.example", "https://balance.example/prefix/", "http://127.0.0.1:1/",
        "http://balance.example", "https://user:hush-pass@balance.example", "https://",
        "https://balance.example?x=hush-1", "https://[::1]:8", "https://[", "https://a:hush-port",
        "ftp://balance.example", "https://b\u00fccher.example", "https://a..b",
        "https://" + "a" * 70 + ".example", "https://xn--hush-.example",
    ]),
    marked.map("https://{}".format),
    marked,
)  # fmt: skip
account_names = st.text(max_size=6) | st.sampled_from(["main", "主账户", "a" * 255, "a" * 256])
right_values: dict[str, SearchStrategy[Any]] = {
    "dev_key": marked,
    "dev_secret": marked,
    "account": account_names,
    "product": st.sampled_from(["sms", "sms", "otp", "hush-product"]),
    "base_url": urls,
    "currency": st.sampled_from(["USD", "EUR", "usd", "hush-currency", ""]),
    "snapshot_interval": st.sampled_from([
        "PT1S", "PT1H", "P1D", "PT7M", "PT25H", "P1M", "PT0S", "-PT1H", "hush-interval", "PT1.5S",
        "PT99999H", "PT999999999999999999S", "2026-01-01", "P1DT", "",
    ]),
    "request_timeout": st.floats(-1, 4000) | st.sampled_from(["30", "hush-timeout", "1e3", "nan"]),
    "max_attempts": st.integers(-1, 102),
    "max_elapsed": st.floats(0, 90_000) | st.sampled_from(["60"]),
    "max_concurrency": st.integers(-1, 1002),
}  # fmt: skip
sometimes = {name: st.one_of(value, value, value, rubbish) for name, value in right_values.items()}
inside = ("account", "dev_key", "dev_secret", "product", "base_url", "currency")
an_account = st.fixed_dictionaries(
    {name: sometimes[name] for name in inside[:3]},
    optional={name: sometimes[name] for name in inside[3:]} | {"devkey": rubbish},
)
configs = st.one_of(
    st.fixed_dictionaries(
        {name: right_values[name] for name in inside[1:3]},
        optional={
            name: value for name, value in sometimes.items() if name not in inside[1:3]
        },
    ),
    st.fixed_dictionaries(
        {"accounts": st.lists(an_account, min_size=1, max_size=4)},
        optional={name: value for name, value in sometimes.items() if name not in inside[:3]},
    ),
    st.dictionaries(
        st.sampled_from([*SETTINGS["properties"], "stream_maps", "flattening_max_depth"]),
        rubbish,
        max_size=4,
    ),
    rubbish,
)  # fmt: skip


def test_wrong_settings_are_refused_without_being_shown_and_before_anything_is_sent(
    tmp_path: Path, tally: Tally
) -> None:
    path = tmp_path / "config.json"

    @settings(max_examples=CONFIGS)
    @given(configs, st.booleans())
    def a_run_is_right(config: Any, from_environment: bool) -> None:  # noqa: ANN401, FBT001
        tally.generated += 1
        variables = {}
        if from_environment and isinstance(config, dict):
            variables = {
                f"TAP_BALANCE_{name.upper()}": text
                for name, value in config.items()
                if name.isidentifier()
                and "\0" not in (text := value if isinstance(value, str) else json.dumps(value))
            }
        path.write_text(json.dumps(config))
        with mock.patch.dict(os.environ, variables), requests_mock.Mocker() as api:
            api.get(requests_mock.ANY, json=SMS)
            run = run_here("--config", "ENV" if variables else str(path))
        listed = config.get("accounts") if isinstance(config, dict) else None
        accounts = listed if listed and isinstance(listed, list) else [config]
        check(run, len(accounts))
        shown = MARK in re.sub(r"account '.*?':", "", run.stderr)
        tally.secrets += shown
        assert not shown
        if "The settings are wrong; nothing was sent." in run.errors:
            assert api.call_count == 0
            assert run.stdout == ""
        else:
            assert api.call_count == len(accounts)
            wrong = [r for r in run.records if tuple(r[name] for name in INTEGERS) != GOOD]
            tally.wrong_rows += len(wrong)
            assert wrong == []
            assert (len(run.records) == len(accounts)) == (run.status == 0)

    a_run_is_right()
