"""Believable histories of prepaid accounts: what hourly runs of the tap would have loaded.

The same instant always gives the same rows. An account burns whole messages at its price, by
weekday and hour, and what is left at the end is in its description: the rows are computed backwards
from there, with top-ups of whole amounts in office hours.
"""
# ruff: noqa: DTZ001, PLR2004, S311 - UTC without a zone, weights and chances, luck and not secrets

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)
MIDNIGHT = datetime(1970, 1, 1)

ALL_WEEK = (1.0, 1.0, 1.0, 1.05, 1.1, 1.0, 0.95)
WORKING_WEEK = (1.2, 1.25, 1.25, 1.2, 1.1, 0.3, 0.2)
OFFICE = (1,) * 6 + (3, 8, 14, 16, 16, 14, 12, 14, 16, 15, 12, 8, 5, 3, 2, 2, 1, 1)
SATURDAY = 5
EVENING = (4, 2, 1, 1, 1, 2, 5, 8, 10, 10, 10, 11, 12, 11, 10, 11, 13, 16, 20, 23, 24, 21, 15, 9)


@dataclass(frozen=True)
class Snapshot:
    """One row of the loaded table; amounts are x10000, times are UTC without a zone, as in it."""

    account: str
    product: str
    currency: str | None
    at: datetime
    observed_at: datetime
    paid: int
    gift: int

    @property
    def total(self) -> int:
        """Both balances together."""
        return self.paid + self.gift

    @property
    def key(self) -> str:
        """The row's primary key."""
        return f"{self.account}@{self.at:%Y-%m-%dT%H:%M:%SZ}"

    @property
    def row(self) -> tuple[str | None, ...]:
        """The values as text, in the order of the table's columns."""
        amounts = (self.paid, self.gift, self.total)
        return (
            self.key,
            self.account,
            self.product,
            self.at.isoformat(sep=" "),
            self.observed_at.isoformat(sep=" "),
            self.currency,
            *(str(amount) for amount in amounts),
            *(
                f"{'-' * (amount < 0)}{abs(amount) // 10000}.{abs(amount) % 10000:04}"
                for amount in amounts
            ),
        )


@dataclass(frozen=True)
class Account:
    """An account's habits; "days ago" counts back from the end of the history.

    Attributes:
        messages: On an average day at the end.
        left: Paid balance at the end, in average days.
        price: Of a message, x10000.
        week: Weight of each weekday, from Monday.
        hours: Weight of each hour of the day, UTC.
        top_up: What one adds, in average days.
        growth: By which part a month is larger than the one before.
        campaigns: The days ago on which three times as much is sent.
        gift: Whole units of currency, days ago, and the days after which the rest expires.
        outage: Hours ago between which there are no snapshots.
        age: Days since its first snapshot.
        idle: Days since its last message.
        surge: What the last interval burns besides, in average days.
    """

    name: str
    currency: str | None
    messages: int
    left: float
    product: str = "sms"
    price: int = 79
    week: Sequence[float] = ALL_WEEK
    hours: Sequence[float] = EVENING
    top_up: int = 25
    growth: float = 0.0
    campaigns: tuple[int, ...] = ()
    gift: tuple[int, int, int] | None = None
    outage: tuple[int, int] = (0, 0)
    age: int | None = None
    idle: int = 0
    surge: float = 0.0

    def snapshots(self, start: datetime, until: datetime, every: timedelta) -> list[Snapshot]:
        """The snapshots of the intervals from `start` to `until`, without those of the outage."""
        if self.age is not None:
            start = max(start, until - self.age * DAY)
        times = [start + number * every for number in range((until - start) // every + 1)]
        luck = random.Random(self.name)
        burned = self._burned(times, every, luck)
        gifts, burned = self._gifts(times, burned)
        paid = self._paid(times, burned, luck)
        missing_from, missing_to = (until - hours * HOUR for hours in self.outage)
        return [
            Snapshot(
                self.name,
                self.product,
                self.currency,
                at,
                at + timedelta(microseconds=luck.randint(1_200_000, 3_800_000)),
                paid[number],
                gifts[number],
            )
            for number, at in enumerate(times)
            if not missing_from <= at < missing_to
        ]

    def _burned(
        self, times: Sequence[datetime], every: timedelta, luck: random.Random
    ) -> list[int]:
        """What is burned in the interval that ends at each time; at the first, nothing."""
        until, hours = times[-1], every // HOUR
        share = 7 / sum(self.hours) / sum(self.week)
        day, of_day, found = None, 0.0, [0]
        for at in times[1:]:
            begin = at - every
            if begin.date() != day:
                day, ago = begin.date(), (until.date() - begin.date()).days
                of_day = self.week[begin.weekday()] * math.exp(luck.gauss(0, 0.08))
                of_day *= (1 + self.growth) ** (-ago / 30) * (3 if ago in self.campaigns else 1)
            weight = sum(self.hours[(begin.hour + hour) % 24] for hour in range(hours))
            is_idle = at > until - self.idle * DAY
            expected = 0.0 if is_idle else self.messages * of_day * weight * share
            found.append(max(0, round(luck.gauss(expected, math.sqrt(expected)))) * self.price)
        found[-1] += round(self.surge * self.messages) * self.price
        return found

    def _gifts(
        self, times: Sequence[datetime], burned: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """The gift balance at each time, and what is left to be paid; gifts are used first."""
        granted, left, gifts, paid = self._granted(times[-1]), 0, [], []
        if self.gift is None or granted is None:
            return [0] * len(times), list(burned)
        amount, _, days = self.gift
        for before, at, used in zip([times[0], *times], times, burned, strict=False):
            left = 0 if before < granted + days * DAY <= at else left
            from_gift = min(left, used)
            left += (amount * 10_000 if before < granted <= at else 0) - from_gift
            gifts.append(left)
            paid.append(used - from_gift)
        return gifts, paid

    def _paid(
        self, times: Sequence[datetime], burned: Sequence[int], luck: random.Random
    ) -> list[int]:
        """The paid balance at each time, computed from the last one backwards."""
        of_day, granted = self.messages * self.price, self._granted(times[-1])
        top_up = max(1, round(self.top_up * of_day / 500_000)) * 500_000
        balance, found = round(self.left * of_day), []
        for at, used in zip(reversed(times), reversed(burned), strict=True):
            found.append(balance)
            balance += used
            is_office = at.weekday() < SATURDAY and 8 <= at.hour < 17 and luck.random() < 0.2
            # A gift comes with a top-up.
            least = top_up + (1 if at == granted else 4) * of_day
            if (is_office or at == granted) and at < times[-1] - 2 * DAY and balance > least:
                balance -= top_up
        return found[::-1]

    def _granted(self, until: datetime) -> datetime | None:
        """When the gift is granted, if there is one."""
        return self.gift and until.replace(hour=12, minute=0) - self.gift[1] * DAY


ACCOUNTS = (
    Account("shop", "USD", 4_217, 21, growth=0.12, top_up=30, gift=(60, 19, 365)),
    Account("marketing", "EUR", 9_523, 5, week=WORKING_WEEK, hours=OFFICE, campaigns=(16, 50, 51)),
    Account("login", "USD", 6_813, 8.2, product="otp", price=105, surge=2.4),
    Account("reminders", "USD", 2_600, 1.4, hours=OFFICE),
    Account("delivery", "CNY", 15_131, 38, price=460, outage=(222, 191)),
    Account("welcome", "EUR", 907, 13, gift=(250, 36, 30)),
    Account("app-beta", "USD", 350, 18, age=5),
    Account("archive", None, 500, 6, idle=47),
)
"""What make demo shows: growth and a gift, campaigns, a surge that has just begun, one that runs
out tomorrow, an outage, a gift that expired, a new account, an idle one."""


def _other(number: int) -> Account:
    """One more account, for pages with many; a few are empty, stale, idle or new."""
    luck = random.Random(number)
    kind = luck.choices(["usual", "empty", "stale", "idle", "new"], [90, 2, 3, 3, 2])[0]
    office = luck.random() < 0.4
    return Account(
        f"{luck.choice(['shop', 'app', 'club', 'clinic', 'bank', 'taxi'])}-{number:04}",
        luck.choices(["USD", "EUR", "CNY", None], [50, 30, 15, 5])[0],
        messages=round(math.exp(luck.uniform(4, 9))),
        left=0 if kind == "empty" else math.exp(luck.uniform(0, 4.2)),
        price=luck.choice([79, 79, 105, 460]),
        week=WORKING_WEEK if office else ALL_WEEK,
        hours=OFFICE if office else EVENING,
        top_up=luck.choice([7, 14, 30]),
        growth=luck.choice([0, 0, 0.05, 0.2, -0.1]),
        campaigns=(luck.randint(2, 100),) if luck.random() < 0.2 else (),
        gift=(luck.randint(1, 9) * 10, luck.randint(10, 60), 20) if luck.random() < 0.2 else None,
        outage=(48, -1) if kind == "stale" else (0, 0),
        age=luck.randint(1, 9) if kind == "new" else None,
        idle=luck.randint(10, 60) if kind == "idle" else 0,
    )


def accounts(count: int = len(ACCOUNTS)) -> list[Account]:
    """The named accounts, and after them as many others as are needed."""
    return [*ACCOUNTS[:count], *map(_other, range(len(ACCOUNTS), count))]


def history(
    until: datetime, *, count: int = len(ACCOUNTS), months: float = 4, every: timedelta = HOUR
) -> Iterator[Snapshot]:
    """Make the snapshots of some accounts, account by account.

    Args:
        until: UTC; the last snapshot is of the interval in which it lies.
        count: How many accounts.
        months: Of 30 days.
        every: The interval between two snapshots: a part of a day, in whole hours.
    """
    last = MIDNIGHT + (until.replace(tzinfo=None) - MIDNIGHT) // every * every
    start = last - MONTH * months // every * every
    for account in accounts(count):
        yield from account.snapshots(start, last, every)


def load(uri: str, snapshots: Iterable[Snapshot]) -> None:
    """Append to the table that target-postgres has made in this Postgres."""
    with (
        psycopg.connect(uri) as connection,
        connection.cursor().copy("COPY tap_balance.balance FROM STDIN") as copy,
    ):
        for snapshot in snapshots:
            copy.write_row(snapshot.row)
