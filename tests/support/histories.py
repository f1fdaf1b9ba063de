"""Generated histories of prepaid accounts: what the tap would have loaded in a quarter."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from history import Snapshot

START = datetime(2026, 1, 1)  # noqa: DTZ001 - as in the tables: UTC, without a zone
HOURS = 90 * 24


class _Account:
    """One account, hour by hour; the last digit of its number decides on what happens to it."""

    def __init__(self, number: int) -> None:
        self.luck = random.Random(number)
        self.number = number
        self.kind = number % 10
        self.name = f"a{number:02}"
        if number == 1:  # whatever shows it must not take it for markup, SQL or a formula
            self.name = '=it\'s <b title="1">1</b><script>document.title = 1</script>'
        self.daily = self.luck.randint(3_000, 900_000)
        self.paid = self.daily * self.luck.randint(5, 40)
        self.gift = 0
        self.first = self.luck.randint(0, 200)
        if self.kind == 0 and number:
            self.first = HOURS - self.luck.randint(30, 9 * 24)  # new: too little history
        if number == 40:
            self.first = HOURS - 5  # of a single day
        self.last = HOURS - (60 if number == 5 else 0)  # nobody has asked it since
        self.last_top_up = {2: HOURS - self.luck.randint(2, 30) * 24, 4: 0}.get(self.kind, HOURS)
        self.spike = self.luck.randint(60 * 24, 85 * 24)
        self.down = {self.luck.randint(0, HOURS) for _ in range(12)}
        outage = self.luck.randint(20 * 24, 80 * 24)
        if self.kind in {1, 6}:
            self.down |= set(range(outage, outage + 75))
        # Each day the same hours are missing: at noon, at midnight, or so many around midnight that
        # no day is ever complete.
        daily = {15: {12}, 45: {0}, 25: {22, 23, 0, 1}}.get(number, set())
        self.down |= {hour for hour in range(HOURS) if hour % 24 in daily}

    def used(self, hour: int) -> int:
        moment = START + timedelta(hours=hour)
        if self.kind == 8 or hour == self.first:
            return 0
        if self.number == 27 and hour < HOURS - 272:  # idle for long
            return 0
        if self.kind == 9:  # campaigns, twice a week
            used = self.daily * 3 if moment.hour == 9 and moment.weekday() in {1, 3} else 0
        else:
            busy = 8 <= moment.hour < 20
            used = self.luck.randint(0, self.daily // (6 if busy else 60))
            used //= 3 if moment.weekday() > 4 else 1
        return used + (self.daily * 20 if hour == self.spike else 0)

    def change_gift(self) -> None:
        if self.luck.random() < 0.002 and self.kind != 7:
            self.gift += self.luck.randint(1, 10) * 100_000
        if self.gift and self.luck.random() < 0.01:
            self.gift = 0  # expired

    def top_up(self, hour: int) -> None:
        if self.kind == 7:  # kept just around a threshold
            if self.paid < self.daily * (165 if self.number % 4 == 3 else 430) // 100:
                self.paid += self.daily // 4
        elif hour < self.last_top_up and self.paid < self.daily * self.luck.randint(1, 8):
            self.paid += self.daily * self.luck.randint(1, 30)

    def live(self, hour: int) -> None:
        used = self.used(hour)
        from_gift = min(self.gift, used) if self.luck.random() < 0.5 else 0
        self.gift -= from_gift
        self.paid -= used - from_gift
        self.change_gift()
        self.top_up(hour)
        if self.kind == 4 and self.number != 4:
            self.paid = max(self.paid, -50_000)  # as far as the overdraft goes
        if self.number in {22, 32}:
            self.paid = max(self.paid, 1)  # too little for one more message

    def currency(self, hour: int) -> str | None:
        if self.number == 12:  # for some hours another one, then as before
            return "EUR" if hour in {974, 975, 1303} else "USD"
        if self.number == 6 and hour < HOURS // 2:
            return None
        return ("USD", "EUR", "JPY")[self.number % 3]

    def snapshot(self, hour: int) -> Snapshot:
        at = START + timedelta(hours=hour, minutes=7 if self.kind == 6 else 0)
        return Snapshot(
            account=self.name,
            product="otp" if self.kind in {3, 7} else "sms",
            currency=self.currency(hour),
            at=at,
            observed_at=at + timedelta(seconds=2, microseconds=self.number),
            paid=self.paid,
            gift=self.gift,
        )


def account(number: int) -> list[Snapshot]:
    """One account's hourly snapshots, less those that are missing."""
    one = _Account(number)
    found = []
    for hour in range(one.first, one.last + 1):
        one.live(hour)
        if hour not in one.down:
            found.append(one.snapshot(hour))
    return found


def quarter(accounts: int = 50) -> list[Snapshot]:
    """A quarter of all accounts, in the order of the snapshots."""
    rows = [row for number in range(accounts) for row in account(number)]
    return sorted(rows, key=lambda row: (row.at, row.account))


def tried_again(rows: list[Snapshot], every: int = 97) -> list[Snapshot]:
    """What a target that appends holds beside `rows`: earlier tries, which no longer count."""
    return [
        Snapshot(
            row.account,
            row.product,
            row.currency,
            row.at,
            row.observed_at - timedelta(seconds=1),
            row.paid + 1_234,
            row.gift,
        )
        for row in rows[::every]
    ]
