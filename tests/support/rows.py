"""Stored snapshots: what they are, and what they should be."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bank import Account


class Row(NamedTuple):
    """A stored snapshot; instants are UTC, amounts exact."""

    snapshot_id: str
    account: str
    product: str
    snapshot_at: dt.datetime
    observed_at: dt.datetime
    currency: str | None
    balance10000: int
    gift_balance10000: int
    total_balance10000: int
    balance: Decimal | None
    gift_balance: Decimal | None
    total_balance: Decimal | None

    def order(self) -> tuple[str, dt.datetime]:
        return self.snapshot_id, self.observed_at

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Row:
        """Read what a destination holds, whatever type it gave it; what is not there is null."""
        values: dict[str, Any] = {}
        for name in cls._fields:
            value = stored.get(name)
            if value is not None and name.endswith("_at"):
                values[name] = utc(value)
            elif value is not None and name.endswith("10000"):
                values[name] = int(value)
            elif value is not None and name.endswith("balance"):
                values[name] = Decimal(value)
            else:
                values[name] = value
        return cls(**values)


def utc(value: str | dt.datetime) -> dt.datetime:
    """Read an instant; one without a zone is in UTC."""
    moment = (
        dt.datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
    )
    return moment.replace(tzinfo=moment.tzinfo or dt.timezone.utc).astimezone(dt.timezone.utc)


def expected_rows(accounts: Iterable[Account], at: str) -> list[Row]:
    """What the table of the record in README.md says, for a run at this instant."""
    moment = utc(at)
    interval = moment.replace(minute=0, second=0, microsecond=0)
    rows = []
    for account in accounts:
        amounts = (
            account.balance10000,
            account.gift_balance10000,
            account.balance10000 + account.gift_balance10000,
        )
        rows.append(
            Row(
                f"{account.name}@{interval:%Y-%m-%dT%H:%M:%SZ}",
                account.name,
                account.product,
                interval,
                moment,
                "USD" if account.product == "otp" else account.currency,
                *amounts,
                *(Decimal(amount).scaleb(-4) for amount in amounts),
            )
        )
    return sorted(rows, key=Row.order)


def counted(rows: list[Row], expected: list[Row]) -> str:
    """Say how often each row is there; all are there, and no other."""
    assert sorted(set(rows), key=Row.order) == expected
    doubled = sum(rows.count(row) > 1 for row in expected)
    return f"twice: {doubled} of {len(expected)}" if doubled else "each once"
