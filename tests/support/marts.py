"""What the dbt models have to say, computed in Python from the rows alone.

Written from the models' documentation, row by row and day by day, where the models' SQL works on
sets: the two have no line in common. Amounts are integers, times 10000.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    from histories import Snapshot

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GAP = HOUR * 3 / 2
STALE = 3 * HOUR
WINDOW = 28
LEAST = 7
MEMORY = 7
DAYS = {"critical": 3, "low": 7}

Series = tuple[str, str, str | None]


@dataclass(frozen=True)
class Change:
    row: Snapshot
    before: Snapshot | None

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

    @property
    def amounts(self) -> tuple[int, int, int, int] | None:
        """Spend, top-up, gift granted, gift used or expired."""
        if not self.before:
            return None
        return max(-self.paid, 0), max(self.paid, 0), max(self.gift, 0), max(-self.gift, 0)

    @property
    def day(self) -> date:
        return (self.row.at - timedelta(seconds=1) if self.before else self.row.at).date()


def changes(rows: Iterable[Snapshot], as_of: datetime) -> list[Change]:
    newest: dict[str, Snapshot] = {}
    for row in rows:
        if row.at <= as_of and (
            row.key not in newest or row.observed_at > newest[row.key].observed_at
        ):
            newest[row.key] = row
    found = []
    before: dict[Series, Snapshot] = {}
    for row in sorted(newest.values(), key=lambda row: (row.account, row.at)):
        found.append(Change(row, before.get(series(row))))
        before[series(row)] = row
    return found


def series(row: Snapshot) -> Series:
    return row.account, row.product, row.currency


@dataclass(frozen=True)
class Day:
    coverage: str
    changes: list[Change]

    @property
    def amounts(self) -> tuple[int, ...] | None:
        known = [change.amounts for change in self.changes if change.amounts]
        return tuple(map(sum, zip(*known, strict=True))) if known else None

    @property
    def burn(self) -> int:
        assert self.amounts
        return self.amounts[0] + self.amounts[3]

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
        by_series.setdefault(series(change.row), []).append(change)
    for key, own in by_series.items():
        by_day = {day: list(group) for day, group in groupby(own, lambda change: change.day)}
        day = min(by_day)
        while day <= as_of.date():
            days[key, day] = Day(_coverage(day, by_day.get(day, []), as_of), by_day.get(day, []))
            day += DAY
    return days


def _coverage(day: date, own: list[Change], as_of: datetime) -> str:
    if not own:
        return "unknown"
    begin = datetime(day.year, day.month, day.day)  # noqa: DTZ001
    known_from = (own[0].before or own[0].row).at
    until = own[-1].row.at
    measured = (
        timedelta(0) <= begin - known_from <= GAP
        and begin + DAY - until <= GAP
        and abs(until - known_from - DAY) * 10 <= DAY
    )
    return "complete" if measured and day < as_of.date() else "partial"


@dataclass(frozen=True)
class Runway:
    status: str
    complete_days: int
    burn: tuple[int, int, int] | None
    """Per day: the rate, its low and its high estimate."""

    days_left: tuple[Decimal | None, Decimal | None, Decimal | None]
    """By the rate, by the high estimate and without gifts, by the low estimate."""

    runs_out_on: date | None


def runway(
    found: list[Change], days: Mapping[tuple[Series, date], Day], as_of: datetime
) -> dict[str, Runway]:
    answers = {}
    for name, group in groupby(found, lambda change: change.row.account):
        rows = [change.row for change in group]
        last = rows[-1]
        known = {
            day: entry.burn
            for (key, day), entry in days.items()
            if key == series(last) and entry.coverage == "complete"
        }
        burn = _burn(known, as_of.date())
        # A switch with two thresholds for each level, moved by one snapshot after the other. One
        # that none has moved is on.
        levels = dict.fromkeys(DAYS, True)
        moments = [
            (row.at.date(), row.total)
            for row in rows
            if series(row) == series(last) and row.at.date() >= as_of.date() - MEMORY * DAY
        ]
        for day, total in [*moments, (as_of.date(), last.total)]:
            rate = _burn(known, day)
            for level, threshold in DAYS.items():
                if rate and total < threshold * rate[0]:
                    levels[level] = True
                elif rate and total * 10 >= threshold * 12 * rate[0]:
                    levels[level] = False
        if as_of - last.observed_at > STALE:
            status = "stale"
        elif last.total <= 0:
            status = "empty"
        elif not burn:
            status = "accumulating"
        else:
            status = next((level for level, on in levels.items() if on), "ok")
        left: tuple[Decimal | None, Decimal | None, Decimal | None] = (None, None, None)
        if burn:
            left = (
                _lasts(last.total, burn[0]),
                _lasts(min(last.total, last.paid), burn[2]),
                _lasts(last.total, burn[1]),
            )
        answers[name] = Runway(
            status,
            len(_window(known, as_of.date())),
            burn,
            left,
            None
            if left[0] is None
            else (last.at + timedelta(seconds=int(left[0] * 86_400))).date(),
        )
    return answers


def _window(known: Mapping[date, int], day: date) -> list[int]:
    return sorted(burn for when, burn in known.items() if day - WINDOW * DAY <= when < day)


def _burn(known: Mapping[date, int], day: date) -> tuple[int, int, int] | None:
    costs = _window(known, day)
    count = len(costs)
    if count < LEAST:
        return None
    # Where all days but the dearest are free, the dearest counts as it is.
    rate = -(-sum([*costs[:-1], costs[-2] or costs[-1]]) // count)
    return (
        rate,
        min(costs[-(-count // 4) - 1], rate),
        max(costs[-(-count * 3 // 4) - 1], rate),
    )


def _lasts(total: int, per_day: int) -> Decimal | None:
    if total <= 0:
        return Decimal(0)
    if not per_day or Decimal(total) / per_day > 3650:
        return None
    return (Decimal(total) / per_day).quantize(Decimal("0.1"), ROUND_DOWN)
