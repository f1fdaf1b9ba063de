"""The figures on the page's first screen, computed from what the models say of each account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date, datetime

    from report_page.reading import Account, Spend
    from report_page.words import Currency

TIMELINE_DAYS = 14
DAY = timedelta(days=1)
NOW = ("empty", "critical")
"""The statuses of accounts that are topped up now; `low` ones are soon."""


@dataclass(frozen=True)
class Months:
    """The days that are compared: those of this month that are over, and the same of the last.

    On the first day of a month, that is all of the last month and the one before.
    """

    first: date
    last: date
    earlier_first: date
    earlier_last: date

    @classmethod
    def before(cls, today: date) -> Months:
        """The days that are over when `today` has begun."""
        last = today - DAY
        first = last.replace(day=1)
        month_before = first - DAY
        return cls(
            first,
            last,
            month_before.replace(day=1),
            month_before.replace(day=min(last.day, month_before.day)),
        )


@dataclass(frozen=True)
class Total:
    """All accounts of one currency."""

    currency: Currency
    accounts: int
    left: Decimal
    per_day: Decimal
    """Of the accounts that have an estimate."""

    this_month: Decimal
    last_month: Decimal | None
    """Null where no snapshot is as old as its first day."""

    top_up_now: Decimal
    top_up_soon: Decimal

    @property
    def change(self) -> str:
        """How this month compares with the last."""
        if not self.last_month:
            return "nothing to compare with"
        percent = ((self.this_month / self.last_month - 1) * 100).quantize(Decimal(1))
        if not percent:
            return "about the same"
        return f"{abs(percent):,f}% {'more' if percent > 0 else 'less'}"


def totals(accounts: list[Account], spend: Spend, months: Months) -> list[Total]:
    """One for each currency, the one with most accounts first, and none at all last."""
    by_currency: dict[Currency, list[Account]] = {}
    for account in accounts:
        by_currency.setdefault(account.currency, []).append(account)
    ordered = sorted(
        by_currency.items(), key=lambda item: (not item[0].code, -len(item[1]), item[0].code)
    )
    return [
        _total(currency, own, spend.get(currency.code, {}), months) for currency, own in ordered
    ]


def _total(
    currency: Currency, own: list[Account], spend: dict[date, Decimal], months: Months
) -> Total:
    def spent(first: date, last: date) -> Decimal:
        return sum((amount for day, amount in spend.items() if first <= day <= last), Decimal(0))

    known_before = bool(spend) and min(spend) <= months.earlier_first
    return Total(
        currency,
        len(own),
        sum((account.total for account in own), Decimal(0)),
        sum((account.per_day for account in own if account.per_day is not None), Decimal(0)),
        spent(months.first, months.last),
        spent(months.earlier_first, months.earlier_last) if known_before else None,
        sum((one.top_up for one in own if one.top_up and one.status in NOW), Decimal(0)),
        sum((one.top_up for one in own if one.top_up and one.status not in NOW), Decimal(0)),
    )


@dataclass(frozen=True)
class DayAhead:
    """One day of the timeline."""

    day: date
    accounts: list[Account]
    """Those that run out on it, the first first."""


def timeline(accounts: list[Account], now: datetime) -> list[DayAhead]:
    """Who runs out today and on each of the thirteen days after it; the overdue are today's."""
    ahead = [DayAhead(now.date() + k * DAY, []) for k in range(TIMELINE_DAYS)]
    for account in first_to_run_out(accounts):
        if account.end and (account.end.date() - now.date()).days < TIMELINE_DAYS:
            ahead[max((account.end.date() - now.date()).days, 0)].accounts.append(account)
    return ahead


def first_to_run_out(accounts: list[Account]) -> list[Account]:
    """The accounts that have an end in sight, the first first."""
    ending = [(account.end, account.name, account) for account in accounts if account.end]
    return [account for *_, account in sorted(ending, key=lambda item: item[:2])]
