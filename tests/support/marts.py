"""What the dbt models have to say, computed in Python from the rows alone.

Written from the models' documentation, row by row and day by day, where the models' SQL works on
sets: the two have no line in common. Amounts are integers, times 10000; names that end in _e6 are
times another million.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from math import floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from history import Snapshot

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
GAP = HOUR * 3 / 2
STALE = 3 * HOUR
WINDOW = 28
NEW = 3
LEAST = 7
ENOUGH_FOR_A_LINE = 21
MEMORY = 7
CRITICAL = 3
LOW = 7
TARGET = 30
IDLE_MIN_BALANCE = 1_000
STEP = 10_000
HORIZON = 3650
MILLION = 10**6

Series = tuple[str, str, str | None]


@dataclass(frozen=True)
class Change:
    row: Snapshot
    before: Snapshot | None
    currency: str | None
    """The last that was known by then."""

    series: Series
    """Whose currency is the first that is known where none was known by then."""

    @property
    def paid(self) -> int:
        assert self.before
        return self.row.paid - self.before.paid

    @property
    def gift(self) -> int:
        assert self.before
        return self.row.gift - self.before.gift

    @property
    def is_gap(self) -> bool | None:
        return self.row.at - self.before.at > GAP if self.before else None

    @cached_property
    def amounts(self) -> tuple[int, int, int, int] | None:
        """Spend, top-up, gift granted, gift used or expired."""
        if not self.before:
            return None
        return max(-self.paid, 0), max(self.paid, 0), max(self.gift, 0), max(-self.gift, 0)

    @property
    def burn(self) -> int:
        assert self.amounts
        return self.amounts[0] + self.amounts[3]

    @property
    def elapsed(self) -> int:
        assert self.before
        return (self.row.at - self.before.at) // SECOND

    @property
    def per_hour(self) -> int:
        return self.burn * 3600 // self.elapsed

    @property
    def label(self) -> Series:
        return (*self.series[:2], self.currency)

    @property
    def day(self) -> date:
        return (self.row.at - timedelta(seconds=1) if self.before else self.row.at).date()


@dataclass(frozen=True)
class Marts:
    """All of it at one time."""

    changes: list[Change]
    days: dict[tuple[Series, date], Day]
    runways: dict[str, Runway]


def of(rows: Iterable[Snapshot], as_of: datetime) -> Marts:
    found = changes(rows, as_of)
    days = daily(found, as_of)
    return Marts(found, days, runway(found, days, as_of))


def changes(rows: Iterable[Snapshot], as_of: datetime) -> list[Change]:
    newest: dict[str, Snapshot] = {}
    for row in rows:
        if row.at <= as_of and (
            row.key not in newest or row.observed_at > newest[row.key].observed_at
        ):
            newest[row.key] = row
    ordered = sorted(newest.values(), key=lambda row: (row.account, row.at))
    first: dict[tuple[str, str], str] = {}
    for row in ordered:
        if row.currency:
            first.setdefault((row.account, row.product), row.currency)
    found = []
    known: dict[tuple[str, str], str] = {}
    before: dict[Series, Snapshot] = {}
    for row in ordered:
        product = (row.account, row.product)
        if row.currency:
            known[product] = row.currency
        series = (*product, known.get(product, first.get(product)))
        found.append(Change(row, before.get(series), known.get(product), series))
        before[series] = row
    return found


@dataclass(frozen=True)
class Day:
    currency: str | None
    coverage: str
    changes: list[Change]

    @cached_property
    def amounts(self) -> tuple[int, ...] | None:
        known = [change.amounts for change in self.changes if change.amounts]
        return tuple(map(sum, zip(*known, strict=True))) if known else None

    @property
    def burn(self) -> int:
        assert self.amounts
        return self.amounts[0] + self.amounts[3]

    @property
    def highest_per_hour(self) -> int | None:
        return max((change.per_hour for change in self.changes if change.before), default=None)

    def sustained_per_hour(self, length: int) -> int:
        """The highest burn an hour that N changes in a row all reached; of fewer, if need be."""
        lows = [
            min(change.per_hour for change in row)
            for row in zip(*(self.changes[start:] for start in range(length)), strict=False)
            if all(change.before and change.currency == row[0].currency for change in row)
        ]
        if lows or length == 1:
            return max(lows, default=0)
        return self.sustained_per_hour(length - 1)

    @property
    def ends(self) -> tuple[int, int, int, int]:
        """Paid balance at the opening and the close, then gift balance."""
        first, last = self.changes[0], self.changes[-1].row
        opening = first.before or first.row
        return opening.paid, last.paid, opening.gift, last.gift


def daily(found: Iterable[Change], as_of: datetime) -> dict[tuple[Series, date], Day]:
    days: dict[tuple[Series, date], Day] = {}
    by_series: dict[Series, list[Change]] = {}
    for change in found:
        by_series.setdefault(change.series, []).append(change)
    for key, own in by_series.items():
        by_day = {day: list(group) for day, group in groupby(own, lambda change: change.day)}
        known = min((change.day for change in own if change.currency), default=None)
        day = min(by_day)
        while day <= as_of.date():
            days[key, day] = Day(
                key[2] if known and day >= known else None,
                _coverage(day, by_day.get(day, []), as_of),
                by_day.get(day, []),
            )
            day += DAY
    return days


def _coverage(day: date, own: list[Change], as_of: datetime) -> str:
    if not own:
        return "unknown"
    begin = midnight(day)
    known_from = (own[0].before or own[0].row).at
    until = own[-1].row.at
    measured = (
        timedelta(0) <= begin - known_from <= GAP
        and begin + DAY - until <= GAP
        and abs(until - known_from - DAY) * 10 <= DAY
    )
    return "complete" if measured and day < as_of.date() else "partial"


def midnight(day: date) -> datetime:
    return datetime.combine(day, time())


@dataclass(frozen=True)
class Rate:
    """What is known on a day of what the days from it on will burn."""

    complete_days: int
    highest: int
    per_day: int
    ahead_e6: list[int]
    """Of that day and the six after it."""

    noise: int
    change: int

    @property
    def low_factor_4e6(self) -> int:
        return 4_200_000 + 5 * self.noise + 2 * self.change

    @property
    def high_factor_4e6(self) -> int:
        return 4_200_000 + 2 * self.noise + 3 * self.change

    def need_e6(self, days_200ths: int, begun: int) -> int:
        """What N 200ths of a day burn from `begun` seconds after midnight on."""
        burned = [self._burned(days_200ths, start) for start in (0, 1)]
        return (burned[0] * (86_400 - begun) + burned[1] * begun) // (86_400 * 200)

    def _burned(self, days_200ths: int, start: int) -> int:
        total = 0
        position = start
        while days_200ths > 0:
            share = min(days_200ths, 200)
            total += self.ahead_e6[position % 7] * share
            days_200ths -= share
            position += 1
        return total

    def seconds(self, amount: int, begun: int) -> int | None:
        """How long an amount lasts, walked day by day; None where that is without end."""
        if amount <= 0:
            return 0
        week = sum(self.ahead_e6) * 86_400
        if not week:
            return None
        goal = amount * 86_400 * MILLION + begun * self.ahead_e6[0]
        weeks, rest = divmod(goal, week)
        gone = 0
        for ahead, burn in enumerate(self.ahead_e6):
            if gone + burn * 86_400 >= rest:
                part = (rest - gone) // burn if burn else 0
                return 7 * 86_400 * weeks + 86_400 * ahead + part - begun
            gone += burn * 86_400
        raise AssertionError


def rate(known: Mapping[date, int], day: date) -> Rate | None:
    """The estimate of one day, from the complete days before it."""
    ages = [age for age in range(1, WINDOW + 1) if day - age * DAY in known]
    complete_days = len(ages)
    if complete_days < NEW:
        return None
    burn = {age: known[day - age * DAY] for age in ages}
    highest = max(burn.values())
    while ages[-1] > 3 and highest and not burn[ages[-1]]:  # before the first day that burned
        burn.pop(ages.pop())
    second = _second(burn.values())
    if second:
        top = next(age for age in ages if burn[age] == highest)
        burn[top] = second
    by_weekday = [[burn[age] for age in ages if -age % 7 == ahead] for ahead in range(7)]
    means = [sum(own) * MILLION // len(own) if own else None for own in by_weekday]
    existing = [mean for mean in means if mean is not None]
    typical = sum(existing) // len(existing)

    def expected(age: int) -> int:
        mean = means[-age % 7]
        assert mean is not None
        return mean

    def ratio(part: Sequence[int]) -> int:
        return sum(burn[age] for age in part) * MILLION**2 // sum(map(expected, part))

    last = [age for age in ages if age <= 7]
    older = [age for age in ages if age > 7]
    last_ratio = older_ratio = 0
    if typical:
        usable = len(last) >= 3 and any(map(expected, last))
        last_ratio = ratio(last if usable else ages)
        usable = len(older) >= 3 and any(map(expected, older))
        older_ratio = ratio(older) if usable else last_ratio
    deviation = sum(
        abs(
            burn[age] * MILLION
            - (expected(age) if len(ages) >= 10 else typical)
            * (last_ratio if age <= 7 else older_ratio)
            // MILLION
        )
        for age in ages
    ) // len(ages)
    differs = abs(last_ratio - older_ratio)
    weight = MILLION // 4
    if last_ratio > older_ratio:
        weight = MILLION
        if deviation:
            weight = min(max(4 * differs * typical // (10 * deviation), MILLION // 4), MILLION)
    both = (older_ratio * (MILLION - weight) + last_ratio * weight) // MILLION
    shares = {age: burn[age] * MILLION**2 // expected(age) for age in ages if expected(age)}
    both = _drawn_to_the_line(both, shares)
    per_day_e6 = typical * both // MILLION
    smaller = min(last_ratio, older_ratio)
    change = 0
    if differs:
        change = min(differs * MILLION // smaller, 2 * MILLION) if smaller else 2 * MILLION
    return Rate(
        complete_days,
        highest,
        -(-typical * both // MILLION**2),
        [(typical if mean is None else mean) * both // MILLION for mean in means],
        min(deviation * MILLION // per_day_e6, 2 * MILLION) if per_day_e6 else 0,
        change,
    )


def _drawn_to_the_line(ratio: int, shares: Mapping[int, int]) -> int:
    """A ratio, drawn to what the line through the days' shares says of five days ahead."""
    n = len(shares)
    mean_age, mean = Fraction(sum(shares), n or 1), Fraction(sum(shares.values()), n or 1)
    ages = sum((age - mean_age) ** 2 for age in shares)
    common = sum((age - mean_age) * (share - mean) for age, share in shares.items())
    if n < ENOUGH_FOR_A_LINE or not common:
        return ratio
    slope = common / ages
    explained = slope * common
    unexplained = sum((share - mean) ** 2 for share in shares.values()) - explained
    weight = max(MILLION - floor(6 * MILLION * unexplained / (n * explained)), 0)
    if not weight:
        return ratio
    ahead = max(floor(mean - slope * (mean_age + 5)), 0)
    drawn = (ratio * (MILLION - weight) + ahead * weight) // MILLION
    return min(max(drawn, ratio * 7 // 10), ratio * 13 // 10)


@dataclass(frozen=True)
class Runway:
    status: str
    complete_days: int
    per_day: int | None
    days_left: tuple[Decimal | None, Decimal | None, Decimal | None]
    """The days, and the range's low and high end."""

    runs_out_on: date | None
    runs_out_at: datetime | None
    """Where that is less than two days after the snapshot."""

    surge_hours_left: Decimal | None
    top_up: int | None


def runway(
    found: list[Change], days: Mapping[tuple[Series, date], Day], as_of: datetime
) -> dict[str, Runway]:
    by_account: dict[str, list[Change]] = {}
    for change in found:
        by_account.setdefault(change.row.account, []).append(change)
    return {name: _Account(own, days, as_of).runway() for name, own in by_account.items()}


def _decided(pairs: Iterable[tuple[int, int]], *, otherwise: bool) -> bool:
    """Of amounts and what is needed: whether one falls short, or all exceed it by 20%."""
    pairs = list(pairs)
    if any(have < need for have, need in pairs):
        return True
    return otherwise and not all(have * 10 >= need * 12 for have, need in pairs)


def _critical(then: Rate, row: Snapshot, begun: int) -> list[tuple[int, int]]:
    if then.complete_days < LEAST:
        return [(row.total, CRITICAL * then.highest)]
    cautious = then.need_e6(CRITICAL * 100, begun) * then.low_factor_4e6
    pairs = [
        (row.total * MILLION, then.need_e6(CRITICAL * 200, begun)),
        (min(row.total, row.paid) * 4 * MILLION**2, cautious),
    ]
    if not then.per_day and row.total < IDLE_MIN_BALANCE:
        pairs.append((row.total, IDLE_MIN_BALANCE))
    return pairs


def _low(then: Rate, row: Snapshot, begun: int) -> list[tuple[int, int]]:
    if then.complete_days < LEAST:
        return [(0, 1)]
    return [(row.total * MILLION, then.need_e6(LOW * 200, begun))]


class _Account:
    """One account, at one time."""

    def __init__(
        self, own: list[Change], days: Mapping[tuple[Series, date], Day], as_of: datetime
    ) -> None:
        self.as_of = as_of
        self.today = as_of.date()
        series = own[-1].series
        self.changes = [change for change in own if change.series == series]
        self.last = own[-1].row
        self.days = {day: entry for (key, day), entry in days.items() if key == series}
        self.known = {
            day: entry.burn for day, entry in self.days.items() if entry.coverage == "complete"
        }
        self.rate = rate(self.known, self.today)
        self.begun = max((self.last.at - midnight(self.today)) // SECOND, 0)

    def levels(self) -> tuple[bool, bool]:
        """Whether it is critical, and low.

        Each is a switch with two thresholds, moved by one snapshot after the other. One that none
        has moved is on.
        """
        critical = low = True
        moments = [
            (change.row.at, change.row)
            for change in self.changes
            if change.row.at.date() >= self.today - MEMORY * DAY
        ]
        if self.last.at < midnight(self.today):
            moments.append((midnight(self.today), self.last))
        rates = {day: rate(self.known, day) for day in {at.date() for at, _ in moments}}
        for at, row in moments:
            then = rates[at.date()]
            if then:
                begun = (at - midnight(at.date())) // SECOND
                critical = _decided(_critical(then, row, begun), otherwise=critical)
                low = _decided(_low(then, row, begun), otherwise=low)
        if not self.rate:
            return False, False
        return critical, low and self.rate.complete_days >= LEAST

    def surge(self) -> tuple[int | None, int]:
        """Seconds left by the surge rule or, of a new account, at its pace; and that pace a day."""
        recent = [
            change
            for change in self.changes
            if change.before and change.row.at > self.as_of - 28 * HOUR
        ]
        total = self.last.total
        if len(recent) < 2 or total <= 0:
            return None, 0
        pace = min(change.per_hour for change in recent[-2:])
        if not pace:
            return None, 0
        last_day = [change for change in recent if change.row.at > self.last.at - DAY]
        burn = sum(change.burn for change in last_day)
        if not self.rate:
            elapsed = sum(change.elapsed for change in last_day)
            per_day = max(24 * pace, burn * 86_400 // elapsed)
            left = total * 86_400 // per_day if total < CRITICAL * per_day else None
            return left, per_day
        window = [
            entry
            for day, entry in self.days.items()
            if self.today - WINDOW * DAY <= day < self.today
        ]
        usual_two, usual_three = (
            _second(entry.sustained_per_hour(length) for entry in window) for length in (2, 3)
        )
        usual_day = _second([entry.burn for entry in window if entry.coverage == "complete"])
        three = min(change.per_hour for change in recent[-3:]) if len(recent) > 2 else 0
        is_fast = pace > 2 * usual_two or three > max(2 * usual_three, usual_two)
        if is_fast and total < 24 * CRITICAL * pace:
            return total * 3600 // pace, 0
        if burn > usual_day * Decimal("2.5") and total < CRITICAL * burn:
            return total * 86_400 // burn, 0
        return None, 0

    def runway(self) -> Runway:
        critical, low = self.levels()
        surge, pace = self.surge()
        total, paid = self.last.total, min(self.last.total, self.last.paid)
        spent = bool(self.rate and self.rate.per_day == 0 and total < IDLE_MIN_BALANCE)
        if self.as_of - self.last.observed_at >= STALE + SECOND:
            status = "stale"
        elif total <= 0:
            status = "empty"
        elif critical:
            status = "critical"
        elif not self.rate or self.rate.complete_days < LEAST:
            status = "accumulating" if surge is None else "critical"
        else:
            status = "low" if low else "ok"
        left: tuple[Decimal | None, Decimal | None, Decimal | None] = (None, None, None)
        seconds = None
        target = pace * TARGET
        if self.rate:
            target = -(-self.rate.need_e6(TARGET * 200, self.begun) // MILLION)
            seconds = self.rate.seconds(total, self.begun)
            low_seconds = self.rate.seconds(paid, self.begun)
            if low_seconds is not None:
                low_seconds = low_seconds * 4 * MILLION // self.rate.low_factor_4e6
            lows = [one for one in (low_seconds, surge) if one is not None]
            high = None if seconds is None else -(-seconds * self.rate.high_factor_4e6 // 4_000_000)
            left = (_tenths(seconds), _tenths(min(lows, default=None)), _tenths(high, up=True))
        if spent:
            left = (Decimal(0), Decimal(0), Decimal(0))
            seconds = 0
            target = IDLE_MIN_BALANCE
        missing = target - (total if total < target else paid)
        known = seconds is not None and seconds <= HORIZON * 86_400
        return Runway(
            status,
            len([day for day in self.known if self.today - WINDOW * DAY <= day < self.today]),
            self.rate.per_day if self.rate else None,
            left,
            (self.last.at + seconds * SECOND).date() if known and seconds is not None else None,
            None if seconds is None or seconds >= 172_800 else self.last.at + seconds * SECOND,
            None if surge is None else Decimal(surge // 360) / 10,
            -(-missing // STEP) * STEP
            if status in {"empty", "critical", "low"} and missing > 0
            else None,
        )


def _second(values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[-2] if len(ordered) > 1 else 0


def _tenths(seconds: int | None, *, up: bool = False) -> Decimal | None:
    if seconds is None or seconds > HORIZON * 86_400:
        return None
    return Decimal(-(-seconds // 8640) if up else seconds // 8640) / 10
