"""Amounts: what is one in either product's body, what is none, and how it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from documented import OTP, SMS

from tap_balance.amounts import (
    Amounts,
    WrongShapeError,
    exact_decimal,
    parse_body,
    read_otp,
    read_sms,
)


def test_the_documented_sms_answer_is_read_from_its_integers() -> None:
    assert read_sms(parse_body(json.dumps(SMS).encode())) == Amounts(123456, 20000, 143456)


def test_the_documented_otp_answer_is_read_from_its_decimals() -> None:
    expected = Amounts(1234500, 10000, 1244500, "USD")
    assert read_otp(parse_body(json.dumps(OTP).encode())) == expected


@pytest.mark.parametrize(
    ("value10000", "text"),
    [
        (0, "0.0000"),
        (1, "0.0001"),
        (-5, "-0.0005"),
        (123456, "12.3456"),
        (2**53 + 1, "900719925474.0993"),
        (2**63 - 1, "922337203685477.5807"),
        (-(2**63), "-922337203685477.5808"),
    ],
)
def test_decimals_are_exact_and_never_in_exponent_form(value10000: int, text: str) -> None:
    assert exact_decimal(value10000) == text


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("123456", 123456),
        ("123456.0", 123456),
        ('"123456"', 123456),
        ("1.23456e5", 123456),
        ("-0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_a_whole_number_is_taken_however_it_is_written(written: str, value: int) -> None:
    body = '{"balance10000": %s, "gift_balance10000": 0, "total_balance10000": 0}' % written  # noqa: UP031
    assert read_sms(parse_body(body.encode())).balance10000 == value


@pytest.mark.parametrize(
    "written",
    [
        '"1_000"',
        '"123456.0"',
        "123456.5",
        "1e99999999999999999999",
        "1e-9999999",
        "9223372036854775808",
        "1." + "0" * 100 + "1",
    ],
)
def test_anything_else_is_no_amount(written: str) -> None:
    body = '{"balance10000": %s, "gift_balance10000": 0, "total_balance10000": 0}' % written  # noqa: UP031
    with pytest.raises(WrongShapeError, match="`balance10000`"):
        read_sms(parse_body(body.encode()))


@pytest.mark.parametrize(
    "body",
    [[], {}, None, 5, "text", {"code": 2001, "message": "invalid token"}, {"data": SMS}],
    ids=["list", "empty", "null", "number", "string", "error", "envelope"],
)
def test_what_is_not_an_sms_balance_is_refused(body: Any) -> None:  # noqa: ANN401
    with pytest.raises(WrongShapeError):
        read_sms(body)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"balance": "123.45001"}, "`balance` is not a decimal with 4 places"),
        ({"balance": None}, "`balance` is not a decimal"),
        ({"balance": "922337203685477.5808"}, "`balance` is not a decimal with 4 places within"),
        ({"balance": int("9" * 100)}, "`balance` is not a decimal with 4 places within 64 bits"),
        ({"currency": "dollars"}, "`currency`"),
        ({"currency": None}, "`currency`"),
        ({"balance10000": 1}, "the response has the sms format"),
    ],
)
def test_what_is_not_an_otp_balance_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(WrongShapeError, match=reason):
        read_otp(OTP | change)


def test_the_other_products_answer_is_named() -> None:
    with pytest.raises(WrongShapeError, match="the response has the otp format"):
        read_sms(OTP)


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"balance": 12.3457}, "`balance` does not agree with `balance10000`"),
        ({"balance": None}, "`balance` does not agree with `balance10000`"),
        ({"total_balance10000": 1, "total_balance": 0.0001}, "the total is not the sum"),
    ],
)
def test_a_disagreement_is_a_warning_and_the_integers_win(
    change: dict[str, Any], doubt: str
) -> None:
    found = read_sms(parse_body(json.dumps(SMS | change).encode()))
    assert found.balance10000 == 123456
    assert len(found.warnings) == 1
    assert doubt in found.warnings[0]


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe\xff", b"[" * 100_000], ids=["empty", "bytes", "deep"]
)
def test_what_is_no_json_is_told_apart(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is not JSON") as refusal:
        parse_body(body)
    assert not isinstance(refusal.value, WrongShapeError)


def test_a_repeated_name_is_refused() -> None:
    with pytest.raises(WrongShapeError, match="repeats a name"):
        parse_body(b'{"balance10000": 1, "balance10000": 2}')
