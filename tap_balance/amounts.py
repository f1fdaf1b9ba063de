"""Exact amounts: x10000 integers out of both response bodies, and decimals out of the integers."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from typing import Any

from tap_balance.config import RepeatedKeyError, parse_json

FIELDS = ("balance", "gift_balance", "total_balance")
SCALE = 4
"""Decimal places of an amount: the integers are the amounts times 10**4."""

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
# Long enough for 64 bits and 4 places, short enough that no conversion can take long.
_LONGEST_NUMBER = 80
_EXACT = Context(_LONGEST_NUMBER, Emin=-_LONGEST_NUMBER, Emax=_LONGEST_NUMBER, traps=[Inexact])


class WrongShapeError(ValueError):
    """The body is JSON but not a balance; the text says what is wrong, without amounts."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What one account has left.

    Attributes:
        balance10000: Paid balance, x10000.
        gift_balance10000: Gift balance, x10000.
        total_balance10000: Both together, x10000, as the provider states it.
        currency: ISO 4217 code, or None where the body has none.
        warnings: What in the body does not agree with these integers.
    """

    balance10000: int
    gift_balance10000: int
    total_balance10000: int
    currency: str | None = None
    warnings: tuple[str, ...] = ()


def exact_decimal(value10000: int) -> str:
    """Write an x10000 integer as a decimal with four places: 123456 is "12.3456".

    Plain notation always ("0.0001", never "1E-4"), because targets parse the text.
    """
    return format(Decimal(value10000).scaleb(-SCALE, _EXACT), "f")


def parse_body(body: bytes) -> Any:  # noqa: ANN401
    """Parse a response body without losing a digit.

    Numbers with a fraction or an exponent, and overlong integers, become `Decimal`.

    Raises:
        WrongShapeError: An object in it has a key twice.
        ValueError: It is not JSON.
    """
    try:
        return parse_json(body, parse_float=_decimal, parse_int=_integer)
    except RepeatedKeyError:
        raise WrongShapeError("the response repeats a name within one object") from None


def read_sms(body: Any) -> Amounts:  # noqa: ANN401
    """Take the amounts from the body of the SMS product.

    Only the x10000 integers count ("EngageLab SMS: Query Balance": floating point loses
    precision); the floating-point twins are compared with them.

    Raises:
        WrongShapeError: An integer is missing, null, not whole, or beyond 64 bits.
    """
    body = _object(body, "sms")
    integers = {field: _x10000(body, f"{field}10000", places=0) for field in FIELDS}
    warnings = [
        f"`{field}` does not agree with `{field}10000`"
        for field, value in integers.items()
        if not _agrees(body.get(field), value)
    ]
    return _amounts(integers, None, warnings)


def read_otp(body: Any) -> Amounts:  # noqa: ANN401
    """Take the amounts from the body of the OTP product: decimal texts with four places.

    Raises:
        WrongShapeError: An amount or the currency is missing or null, or an amount has more
            than four decimal places or is beyond 64 bits as an x10000 integer.
    """
    body = _object(body, "otp")
    integers = {field: _x10000(body, field, places=SCALE) for field in FIELDS}
    currency = body.get("currency")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise WrongShapeError("`currency` is not an ISO 4217 code")
    return _amounts(integers, currency, [])


def _amounts(integers: dict[str, int], currency: str | None, warnings: list[str]) -> Amounts:
    balance, gift_balance, total_balance = (integers[field] for field in FIELDS)
    if total_balance != balance + gift_balance:
        warnings.append("the total is not the sum of paid and gift balance")
    return Amounts(balance, gift_balance, total_balance, currency, tuple(warnings))


def _object(body: Any, product: str) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(body, dict):
        raise WrongShapeError("the response is not a JSON object")
    if body.get("code") not in (None, 0):
        # Some servers fill the other fields of an error with zeros, which are no balance.
        raise WrongShapeError("it has an error code")
    found = "sms" if "balance10000" in body else "otp" if "currency" in body else product
    if found != product:
        raise WrongShapeError(f"the response has the {found} format, but `product` is {product}")
    return body


def _x10000(body: dict[str, Any], name: str, *, places: int) -> int:
    """Read one amount that is written with `places` decimal places, as an x10000 integer."""
    if name not in body:
        raise WrongShapeError(f"`{name}` is missing")
    value = body[name]
    if type(value) is int and places == 0 and _SMALLEST <= value <= _LARGEST:
        return value  # the usual case, for the sake of speed
    if isinstance(value, str) and (_DECIMAL if places else _WHOLE).fullmatch(value):
        value = _decimal(value)
    if type(value) in {int, Decimal}:  # not `isinstance`: True is an integer to it
        # What is close to a whole number does not become one: it is `Inexact`.
        with suppress(Inexact, ValueError):
            whole = int(_EXACT.to_integral_exact(_EXACT.scaleb(value, places)))
            if _SMALLEST <= whole <= _LARGEST:
                return whole
    wanted = f"decimal with {places} places" if places else "whole number"
    raise WrongShapeError(f"`{name}` is not a {wanted} within 64 bits")


def _agrees(twin: Any, value10000: int) -> bool:  # noqa: ANN401
    """Whether a floating-point twin is what the exact amount becomes as a double."""
    return type(twin) in {int, Decimal} and float(twin) == value10000 / 10_000


def _integer(text: str) -> int | Decimal:
    # `int` refuses, and before that is slow with, thousands of digits.
    return int(text) if len(text) <= _LONGEST_NUMBER else _decimal(text)


def _decimal(text: str) -> Decimal:
    try:
        return _EXACT.create_decimal(text)
    except Inexact:  # more digits, or a larger exponent, than an amount can have
        return Decimal("NaN")
