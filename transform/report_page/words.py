"""Amounts and times as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date, datetime

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, order=True)
class Currency:
    """A currency, and the decimals that its amounts are written with."""

    code: str
    """ISO 4217; empty where the provider does not state one."""

    digits: int

    def money(self, amount: Decimal) -> str:
        """Write an amount as people do: `1,234.57 USD`, `-0.0012 USD`, `1,235 JPY`."""
        rounded = amount.quantize(Decimal(1).scaleb(-self.digits), ROUND_HALF_UP)
        if amount and not rounded:
            return self.exact(amount)
        return f"{rounded:,f} {self.code}".strip()

    def hint(self, amount: Decimal) -> str:
        """The exact amount, where `money` has rounded it."""
        is_exact = amount == amount.quantize(Decimal(1).scaleb(-self.digits), ROUND_HALF_UP)
        return "" if is_exact else self.exact(amount)

    def exact(self, amount: Decimal) -> str:
        """Write an amount with all the digits that it has: `1,234.5678 USD`."""
        return f"{amount:,.4f} {self.code}".strip()


def clock(moment: datetime) -> str:
    """A time of UTC: `2026-11-27 18:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def iso(moment: datetime) -> str:
    """The same for `<time datetime>`."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def span(length: timedelta) -> str:
    """A length of time, rounded down: `35 minutes`, `5 hours`, `12 days`."""
    if length < timedelta(minutes=1):
        return "less than a minute"
    if length < HOUR:
        unit, name = timedelta(minutes=1), "minute"
    elif length < 2 * DAY:
        unit, name = HOUR, "hour"
    else:
        unit, name = DAY, "day"
    count = length // unit
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def day_range(first: date, last: date) -> str:
    """Days of one month: `1-26 Nov`, `1 Nov`."""
    if first == last:
        return f"{first.day} {first:%b}"
    return f"{first.day}–{last.day} {last:%b}"  # noqa: RUF001 - a range


def ending(end: datetime, now: datetime, *, to_the_minute: bool) -> str:
    """When an account runs out: `in 5 hours (today 18:00 UTC)`, `in 12 days (2026-12-09)`."""
    when = f"in {span(end - now)}" if end > now else "by now"
    if not to_the_minute:
        return f"{when} ({end:%Y-%m-%d})"
    names = {now.date(): "today", now.date() + DAY: "tomorrow"}
    return f"{when} ({names.get(end.date(), f'{end:%Y-%m-%d}')} {end:%H:%M} UTC)"
