"""Simulated prepaid accounts: what each burns hour by hour, and the snapshots that show of it.

The kinds are this benchmark's own. Amounts are whole numbers, times 10000; hours count from the
account's first one; hour 0 is midnight.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DAYS = 130
"""Length of a simulated account's life; what comes after the judged moments is the truth."""
HOURS = 24 * DAYS
PRICE = 79
"""One message: 0.0079 in currency."""


@dataclass(frozen=True)
class Account:
    """One account's life, hour by hour. A snapshot shows what is left at the hour's end."""

    kind: str
    burn: list[int]
    paid: list[int]
    gift: list[int]
    expires: frozenset[int]
    """Hours in which the gift balance of the time expires."""

    missing: frozenset[int]
    """Hours without a snapshot."""

    first: int = 0
    """The first hour with a snapshot."""

    topped_up: tuple[int, ...] = ()
    """Hours in which somebody adds to it."""

    def total(self, hour: int) -> int:
        return self.paid[hour] + self.gift[hour]

    def days_left(self, hour: int) -> float | None:
        """Days after which nothing is left if nobody adds to it; None beyond what is simulated."""
        paid, gift = self.paid[hour], self.gift[hour]
        if paid + gift <= 0:
            return 0.0
        for later in range(hour + 1, len(self.burn)):
            burn = self.burn[later]
            if paid + gift <= burn:
                return (later - 1 - hour + (paid + gift) / burn) / 24
            from_gift = min(gift, burn)
            gift -= from_gift
            paid -= burn - from_gift
            if later in self.expires:
                gift = 0
            if paid + gift <= 0:
                return (later - hour) / 24
        return None


@dataclass
class Habits:
    """How an account is kept."""

    top_up_below: float
    """Days of its recent burn; 0: never."""

    top_up_to: float
    start: float
    gifts: float = 0.0
    """Chance of a gift in an hour."""


OFTEN = (4.0, 35.0)
MONTHLY = (14.0, 35.0)
"""Days for which a top-up lasts."""

# Hours of the day, in UTC, that messages go out.
OFFICE = [0.1] * 7 + [0.6, 1.5, 2, 2, 1.8, 1.4, 1.7, 2, 1.9, 1.6, 1, 0.5] + [0.2] * 5
EVENING = [
    0.4, 0.2, 0.1, 0.1, 0.1, 0.2, 0.5, 0.8, 1, 1, 1, 1.1,
    1.2, 1.1, 1, 1.1, 1.3, 1.6, 2, 2.3, 2.4, 2.1, 1.5, 0.9,
]  # fmt: skip
FLAT = [1.0] * 24
EVEN_WEEK = [1.0] * 7
WORKING_WEEK = [1.1, 1.15, 1.1, 1.1, 1.0, 0.12, 0.07]
WEEKEND = [0.4, 0.35, 0.4, 0.6, 1.2, 2.2, 1.9]


@dataclass
class Shape:
    """What one account burns: messages a day, and how they fall on days and hours."""

    luck: random.Random
    messages: float
    week: Sequence[float] = field(default_factory=lambda: EVEN_WEEK)
    hours: Sequence[float] = field(default_factory=lambda: FLAT)
    noise: float = 0.1
    """Standard deviation of a day's logarithm."""

    level: Callable[[int], float] = lambda _: 1.0
    """A factor for each day."""

    extra: dict[int, int] = field(default_factory=dict)
    """Messages on top, by hour."""

    def burn(self) -> list[int]:
        found = []
        hourly = sum(self.hours)
        shift = self.luck.randrange(7)
        for day in range(DAYS):
            factor = self.level(day) * self.week[(day + shift) % 7]
            factor *= math.exp(self.luck.gauss(0, self.noise))
            for hour in range(24):
                expected = self.messages * factor * self.hours[hour] / hourly
                sent = count(self.luck, expected) + self.extra.get(24 * day + hour, 0)
                found.append(sent * PRICE)
        return found


def count(luck: random.Random, expected: float) -> int:
    """A Poisson number, with the normal one in its place where that makes no difference."""
    if expected > 30:
        return max(0, round(luck.gauss(expected, math.sqrt(expected))))
    limit, found, product = math.exp(-expected), 0, luck.random()
    while product > limit:
        found += 1
        product *= luck.random()
    return found


def size(luck: random.Random, low: float = 200, high: float = 200_000) -> float:
    """Messages a day, from small shops to large ones."""
    return math.exp(luck.uniform(math.log(low), math.log(high)))


def steady(luck: random.Random) -> Shape:
    return Shape(luck, size(luck), hours=luck.choice([FLAT, EVENING]), noise=0.08)


def working_days(luck: random.Random) -> Shape:
    return Shape(luck, size(luck), WORKING_WEEK, OFFICE, 0.15)


def weekends(luck: random.Random) -> Shape:
    return Shape(luck, size(luck), WEEKEND, EVENING, 0.2)


def growth(luck: random.Random) -> Shape:
    rate = luck.uniform(0.005, 0.025)
    return Shape(
        luck, size(luck, 200, 20_000), WORKING_WEEK, OFFICE, 0.15, lambda day: math.exp(rate * day)
    )


def decline(luck: random.Random) -> Shape:
    rate = luck.uniform(0.005, 0.02)
    return Shape(
        luck, size(luck, 2_000), EVEN_WEEK, EVENING, 0.15, lambda day: math.exp(-rate * day)
    )


def campaigns(luck: random.Random) -> Shape:
    messages = size(luck)
    extra: dict[int, int] = {}
    for day in range(DAYS):
        if luck.random() < 0.06:
            begin, length = 24 * day + luck.randint(7, 17), luck.randint(1, 4)
            sent = messages * luck.uniform(2, 10)
            extra |= {begin + hour: round(sent / length) for hour in range(length)}
    return Shape(luck, messages, EVEN_WEEK, EVENING, 0.15, extra=extra)


def newsletters(luck: random.Random) -> Shape:
    messages = size(luck)
    days, hour = luck.sample(range(7), 2), luck.randint(7, 18)
    extra = {
        24 * day + hour: round(2.5 * messages * math.exp(luck.gauss(0, 0.12)))
        for day in range(DAYS)
        if day % 7 in days
    }
    return Shape(luck, messages * 0.2, WORKING_WEEK, OFFICE, 0.2, extra=extra)


def idle_then_active(luck: random.Random) -> Shape:
    begin = luck.randint(20, 70)
    return Shape(
        luck, size(luck), EVEN_WEEK, EVENING, 0.2, lambda day: 1.0 if day >= begin else 0.0
    )


def tiny(luck: random.Random) -> Shape:
    return Shape(luck, luck.uniform(1.5, 12), EVEN_WEEK, EVENING, 0.1)


def bursty(luck: random.Random) -> Shape:
    return Shape(luck, size(luck), EVEN_WEEK, EVENING, luck.uniform(0.5, 0.9))


def level_shifts(luck: random.Random) -> Shape:
    levels, level = [], 1.0
    for _ in range(DAYS):
        if luck.random() < 1 / 30:
            level *= math.exp(luck.choice([-1, 1]) * luck.uniform(0.3, 1.0))
        levels.append(level)
    return Shape(luck, size(luck), WORKING_WEEK, OFFICE, 0.15, lambda day: levels[day])


def seasonal(luck: random.Random) -> Shape:
    period, phase, height = luck.uniform(30, 90), luck.uniform(0, 6.3), luck.uniform(0.2, 0.5)
    return Shape(
        luck,
        size(luck),
        WEEKEND,
        EVENING,
        0.12,
        lambda day: 1 + height * math.sin(2 * math.pi * day / period + phase),
    )


def batches(luck: random.Random) -> Shape:
    messages, first = size(luck), luck.randint(0, 29)
    extra: dict[int, int] = {}
    for day in range(first, DAYS, 30):
        begin = 24 * day + luck.randint(6, 12)
        sent = messages * luck.uniform(4, 12)
        extra |= {begin + hour: round(sent / 6) for hour in range(6)}
    return Shape(luck, messages, WORKING_WEEK, OFFICE, 0.2, extra=extra)


def wandering(luck: random.Random) -> Shape:
    levels, logarithm = [], 0.0
    for _ in range(DAYS):
        logarithm += luck.gauss(0, 0.06) - 0.02 * logarithm
        levels.append(math.exp(logarithm))
    return Shape(luck, size(luck), EVEN_WEEK, EVENING, 0.15, lambda day: levels[day])


def stop_and_go(luck: random.Random) -> Shape:
    levels: list[float] = []
    while len(levels) < DAYS:
        levels += [1.0] * luck.randint(4, 14) + [0.0] * luck.randint(1, 4)
    return Shape(luck, size(luck), EVEN_WEEK, OFFICE, 0.2, lambda day: levels[day])


def holidays(luck: random.Random) -> Shape:
    levels = [0.1 if luck.random() < 0.04 else 1.0 for _ in range(DAYS)]
    return Shape(luck, size(luck), WORKING_WEEK, OFFICE, 0.2, lambda day: levels[day])


def new(luck: random.Random) -> Shape:
    return replace(luck.choice([steady, working_days, weekends, wandering])(luck))


KINDS: dict[str, Callable[[random.Random], Shape]] = {
    kind.__name__: kind
    for kind in (
        steady, working_days, weekends, growth, decline, campaigns, newsletters, idle_then_active,
        tiny, bursty, level_shifts, seasonal, batches, wandering, stop_and_go, holidays, new,
    )
}  # fmt: skip


def simulated(
    kind: str, number: int, *, stops: int = HOURS, lasts: tuple[float, float] = OFTEN
) -> Account:
    """The account of this kind with this number; always the same one."""
    luck = random.Random(f"{kind} {number}")
    burn = KINDS[kind](luck).burn()
    first = 24 * luck.randint(30, 50) + luck.randrange(24) if kind == "new" else 0
    return keep(kind, burn, luck, first=first, stops=stops, lasts=lasts)


def attacked(account: Account, hour: int, times: float, hours: int = 24) -> Account | None:
    """The same account, from an hour on burning a multiple of its average of four weeks more."""
    average = sum(account.burn[hour - 24 * 28 : hour]) // (24 * 28)
    if not average or account.total(hour - 1) <= 0:
        return None
    luck = random.Random(f"{account.kind} {average} {hour}")
    burn, paid, gift = list(account.burn), list(account.paid), list(account.gift)
    for later in range(hour, len(burn)):
        if later < hour + hours:
            burn[later] += round(average * times * luck.uniform(0.7, 1.3))
        # Nobody tops up, and gifts are gone first.
        left = max(0, paid[later - 1] + gift[later - 1] - burn[later])
        gift[later] = max(0, gift[later - 1] - burn[later])
        paid[later] = left - gift[later]
    return replace(account, burn=burn, paid=paid, gift=gift)


def keep(  # noqa: PLR0913 - each of them makes another account
    kind: str,
    burn: list[int],
    luck: random.Random,
    *,
    first: int = 0,
    stops: int = HOURS,
    lasts: tuple[float, float] = OFTEN,
) -> Account:
    """Simulate what else happens to an account: top-ups, gifts, missing snapshots.

    Args:
        kind: Its name.
        burn: What it burns each hour while something is left.
        luck: Decides on all else.
        first: The first hour with a snapshot.
        stops: From this hour on nobody tops up.
        lasts: Days for which a top-up lasts, from one to the other.
    """
    below = luck.choice([0.5, 1, 2, 3, 5])
    habits = Habits(
        top_up_below=below,
        top_up_to=below + math.exp(luck.uniform(*map(math.log, lasts))),
        start=luck.uniform(2, 30),
        gifts=0.001 if luck.random() < 0.3 else 0.0,
    )
    average = sum(burn[first:]) / (len(burn) - first) * 24
    recent = average
    paid, gift, ends = round(average * habits.start), 0, -1
    paids, gifts, expires, topped_up = [], [], set(), []
    for hour, used in enumerate(burn):
        if hour < first:
            paids.append(paid)
            gifts.append(0)
            continue
        from_gift = min(gift, used)
        gift -= from_gift
        paid = max(0, paid - used + from_gift)
        recent += (used * 24 - recent) / 24 / 10
        if hour == ends and gift:
            expires.add(hour)
            gift = 0
        if luck.random() < habits.gifts and not gift:
            gift, ends = round(average * luck.uniform(0.2, 3)), hour + 24 * luck.randint(3, 30)
        # Somebody looks a few times a day, and tops up with whole amounts.
        if hour < stops and luck.random() < 0.15 and paid + gift < habits.top_up_below * recent:
            paid += max(1, round(recent * habits.top_up_to / 10_000)) * 10_000
            topped_up.append(hour)
        paids.append(paid)
        gifts.append(gift)
    missing = {hour for hour in range(len(burn)) if luck.random() < 0.004}
    if luck.random() < 0.4:
        begin = luck.randrange(len(burn))
        missing |= set(range(begin, begin + luck.randint(3, 60)))
    return Account(
        kind, burn, paids, gifts, frozenset(expires), frozenset(missing), first, tuple(topped_up)
    )
