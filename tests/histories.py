"""Generated histories of prepaid accounts: what the tap would have loaded in a quarter."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

START = datetime(2026, 1, 1)  # noqa: DTZ001 - as in the tables: UTC, without a zone
HOURS = 90 * 24
COLUMNS = (
    "snapshot_id",
    "account",
    "product",
    "snapshot_at",
    "observed_at",
    "currency",
    "balance10000",
    "gift_balance10000",
    "total_balance10000",
    "balance",
    "gift_balance",
    "total_balance",
)


@dataclass(frozen=True)
class Snapshot:
    """One row of the loaded table; amounts times 10000."""

    account: str
    product: str
    currency: str | None
    at: datetime
    observed_at: datetime
    paid: int
    gift: int

    @property
    def total(self) -> int:
        return self.paid + self.gift

    @property
    def key(self) -> str:
        return f"{self.account}@{self.at:%Y-%m-%dT%H:%M:%SZ}"

    @property
    def row(self) -> tuple[str | None, ...]:
        """The values of COLUMNS, as text."""
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


def account(number: int) -> list[Snapshot]:
    """One account's hourly snapshots; its number decides on what happens to it."""
    luck = random.Random(number)
    kind = number % 10
    name = f"it's {number}" if number == 1 else f"a{number:02}"
    product = "otp" if kind in {3, 7} else "sms"
    daily = luck.randint(3_000, 900_000)
    paid = daily * luck.randint(5, 40)
    gift = 0
    first = luck.randint(0, 200)
    last = HOURS
    if kind == 0 and number:
        first = HOURS - luck.randint(30, 9 * 24)  # new: too little history
    if number == 5:
        last -= 60  # nobody has asked it since
    last_top_up = {2: HOURS - luck.randint(2, 30) * 24, 4: 0}.get(kind, HOURS)
    spike = luck.randint(60 * 24, 85 * 24)
    down = {luck.randint(0, HOURS) for _ in range(12)}
    outage = luck.randint(20 * 24, 80 * 24) if kind in {1, 6} else HOURS
    found = []
    for hour in range(first, last + 1):
        moment = START + timedelta(hours=hour)
        weekend = moment.weekday() > 4
        busy = 8 <= moment.hour < 20
        if hour > first and kind != 8:
            used = luck.randint(0, daily // (6 if busy else 60)) // (3 if weekend else 1)
            if kind == 9:  # campaigns, twice a week
                used = daily * 3 if moment.hour == 9 and moment.weekday() in {1, 3} else 0
            if hour == spike:
                used += daily * 20
            from_gift = min(gift, used) if luck.random() < 0.5 else 0
            gift -= from_gift
            paid -= used - from_gift
        if luck.random() < 0.002 and kind != 7:
            gift += luck.randint(1, 10) * 100_000
        if gift and luck.random() < 0.01:
            gift = 0  # expired
        if kind == 7:  # kept just around a threshold
            if paid < daily * (175 if number % 4 == 3 else 430) // 100:
                paid += daily // 4
        elif hour < last_top_up and paid < daily * luck.randint(1, 8):
            paid += daily * luck.randint(1, 30)
        if kind == 4 and number != 4:
            paid = max(paid, -50_000)  # as far as the overdraft goes
        if hour in down or outage <= hour < outage + 75:
            continue
        currency = None if number == 6 and hour < HOURS // 2 else "USD"
        offset = timedelta(minutes=7 if kind == 6 else 0)
        seen = moment + offset + timedelta(seconds=2, microseconds=number)
        found.append(Snapshot(name, product, currency, moment + offset, seen, paid, gift))
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
