"""What is generated: bodies, heads of answers and settings, from nearly right to rubbish."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

from documented import OTP, SMS
from faults import BODY, DEV_SECRET, SECRETS
from hypothesis import strategies as st

from tap_balance.config import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypothesis.strategies import SearchStrategy

MARK = "hush-"
"""What every generated value of a setting holds, so that showing one is noticed."""

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


def near(right: Mapping[str, object]) -> SearchStrategy[list[tuple[str, str]]]:
    """The pairs of a right body, but for two values at most."""
    return st.builds(
        lambda good, bad: [(name, bad.get(name, value)) for name, value in good],
        st.just([(name, json.dumps(value)) for name, value in right.items()]),
        st.dictionaries(st.sampled_from(list(right)), values, max_size=2),
    )


sms_pairs = st.tuples(*(st.tuples(st.just(name), values) for name in SMS))
near_sms, near_otp = near(SMS), near(OTP)
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
