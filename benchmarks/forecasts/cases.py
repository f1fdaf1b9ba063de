"""The moments at which accounts are judged, and what is true of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from accounts import Account

HISTORY = 24 * 36
"""Snapshots that a case has: four weeks, a week of memory, and today."""
DAY = datetime(2026, 3, 2)  # noqa: DTZ001 - UTC, as in the tables
HOUR = timedelta(hours=1)
FIRST, LAST = 37 * 24, 80 * 24
"""The hours of an account's life in which it is judged."""


@dataclass(frozen=True)
class Case:
    """An account at the end of one of its hours."""

    number: int
    """Of the account among those of its kind."""

    account: Account
    hour: int
    purpose: str
    truth: float
    """Days left, or the hours of an attack so far."""

    @property
    def name(self) -> str:
        return f"{self.account.kind} {self.number} at {self.hour}, {self.purpose} +{self.truth:g}"

    @property
    def hour_of_day(self) -> int:
        return (self.hour + 1) % 24

    @property
    def at(self) -> datetime:
        """The time that its newest snapshot is moved to."""
        return DAY + self.hour_of_day * HOUR

    def row(self, more: int = 0) -> tuple[str, datetime, list[int | None], list[int | None]]:
        """Its snapshots, with those of the given hours after the moment."""
        own = self.account
        first = max(own.first, self.hour + 1 - HISTORY)
        hours = range(first, self.hour + 1 + more)
        paid = [None if hour in own.missing else own.paid[hour] for hour in hours]
        gift = [None if hour in own.missing else own.gift[hour] for hour in hours]
        return self.name, self.at - (self.hour - first) * HOUR, paid, gift


def forecasts(make: Callable[..., Account], kind: str, number: int, moments: int) -> Iterator[Case]:
    """Moments at random, where the truth is known."""
    account = make(kind, number)
    luck = random.Random(f"moments {kind} {number}")
    for hour in luck.sample(range(max(FIRST, account.first + 24), LAST), moments):
        truth = account.days_left(hour)
        if hour not in account.missing and truth:
            yield Case(number, account, hour, "forecast", truth)


def run_outs(make: Callable[..., Account], kind: str, number: int) -> Iterator[Case]:
    """A day and three days before the end of an account that nobody tops up any more."""
    luck = random.Random(f"stops {kind} {number}")
    stops = luck.randrange(FIRST, LAST)
    account = make(kind, number, stops=stops)
    begins = max([FIRST, account.first + 24 * 8, *account.topped_up])
    end = next((hour for hour in range(begins, accounts.HOURS) if account.total(hour) <= 0), None)
    if end is None:
        return
    for days in (1, 3):
        hour = end - 24 * days
        if hour > begins and hour not in account.missing:
            yield Case(number, account, hour, f"run-out {days}", days)


def attacks(
    make: Callable[..., Account], kind: str, number: int, hour_of_day: int | None = None
) -> Iterator[Case]:
    """The hour before, and the first three in which an account burns 20 times as much.

    Args:
        make: Makes the account.
        kind: Its kind.
        number: Its number.
        hour_of_day: When the attack begins; at random if it is not given.
    """
    luck = random.Random(f"attack {kind} {number}")
    own = make(kind, number)
    begin = luck.randrange(max(FIRST, own.first + 48), LAST)
    if hour_of_day is not None:
        begin += hour_of_day - begin % 24
    account = accounts.attacked(own, begin, 20)
    if account:
        for hours in range(4):
            yield Case(number, account, begin + hours - 1, "attack", hours)


def span(make: Callable[..., Account], kind: str, number: int) -> Case:
    """A midnight from which on an account is followed hour by hour."""
    account = make(kind, number)
    luck = random.Random(f"span {kind} {number}")
    first = max(FIRST // 24, account.first // 24 + 9)
    return Case(number, account, 24 * luck.randrange(first, LAST // 24) - 1, "span", 0)
