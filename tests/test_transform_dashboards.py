"""The queries of docs/dashboards.md, on both databases, beside what independent Python finds."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from pages import doc

if TYPE_CHECKING:
    from found import Found
    from modelled import History
    from warehouses import Row

pytestmark = pytest.mark.e2e

QUERIES = {
    title: [
        block.split("```")[0] for block in doc("dashboards").section(title).split("```sql\n")[1:]
    ]
    for title in (
        "What is left",
        "What is spent, this month against the last",
        "Who runs out within 14 days",
        "How many accounts have which status",
        "What to top up now",
        "The history of one account",
    )
}


def run(history: History, title: str, number: int = 0) -> list[Row]:
    return history.warehouse.query(QUERIES[title][number].rstrip().rstrip(";"))


def decimal(amount10000: int | None) -> Decimal | None:
    return None if amount10000 is None else Decimal(amount10000) / 10_000


def number(text: str | None) -> Decimal | None:
    # The emulator's sums are floating point.
    return None if text is None else round(Decimal(text), 4)


def test_every_query_of_the_page_is_run_here() -> None:
    blocks = [text for language, text in doc("dashboards").blocks if language == "sql"]
    assert blocks == [text for texts in QUERIES.values() for text in texts]


def test_what_is_left(history: History, found: dict[str, Found]) -> None:
    for currency, accounts, left, per_day, newest in run(history, "What is left"):
        own = [one for one in found.values() if one.currency == currency]
        assert len(own) == int(accounts or 0)
        assert str(newest)[:19] == str(max(one.row.at for one in own))
        assert number(left) == decimal(sum(one.row.total for one in own))
        assert number(per_day) == decimal(sum(one.runway.per_day or 0 for one in own))


def test_what_is_spent(history: History, found: dict[str, Found]) -> None:
    months: dict[tuple[str | None, int], int] = defaultdict(int)
    by_day: dict[tuple[str | None, str], int] = defaultdict(int)
    for one in found.values():
        for _, day, entry in one.every_day:
            spend = entry.amounts[0] if entry.amounts else 0
            by_day[entry.currency, str(day)] += spend
            # All of March is over, and February has 28 days.
            if date(2026, 2, 1) <= day <= date(2026, 3, 31):
                months[entry.currency, day.month] += spend
    title = "What is spent, this month against the last"
    for currency, this, last in run(history, title):
        assert number(this or "0") == decimal(months[currency, 3])
        assert number(last or "0") == decimal(months[currency, 2])
    rows = run(history, title, 1)
    assert len(rows) == len(by_day)
    for of, currency, spent in rows:
        assert number(spent or "0") == decimal(by_day[currency, str(of)[:10]])


def test_who_runs_out(history: History, found: dict[str, Found]) -> None:
    soon = {
        name
        for name, one in found.items()
        if one.runway.status != "stale"
        and (
            (one.runway.days_left[0] is not None and one.runway.days_left[0] < 14)
            or one.runway.surge_hours_left is not None
        )
    }
    rows = run(history, "Who runs out within 14 days")
    assert {row[0] for row in rows} == soon
    for account, status, left, *_ in rows:
        assert status == found[str(account)].runway.status
        assert number(left) == decimal(found[str(account)].row.total)
    first = [found[str(row[0])].runway for row in rows if row[9] is None]
    assert [one.days_left[0] for one in first] == sorted(one.days_left[0] or 0 for one in first)


def test_how_many_accounts_have_which_status(history: History, found: dict[str, Found]) -> None:
    rows = run(history, "How many accounts have which status")
    assert [row[0] for row in rows] == ["empty", "critical", "low", "stale", "accumulating", "ok"]
    counts = Counter(one.runway.status for one in found.values())
    assert {str(status): int(count or 0) for status, count in rows} == counts


def test_what_to_top_up(history: History, found: dict[str, Found]) -> None:
    rows = run(history, "What to top up now")
    assert {str(row[0]): number(row[6]) for row in rows} == {
        name: decimal(one.runway.top_up) for name, one in found.items() if one.runway.top_up
    }
    statuses = [str(row[2]) for row in rows]
    assert statuses == sorted(statuses, key=["empty", "critical", "low"].index)


def test_the_history_of_an_account(history: History, found: dict[str, Found]) -> None:
    query = QUERIES["The history of one account"][0].replace("'shop'", "'a11'")
    rows = history.warehouse.query(query.rstrip().rstrip(";"))
    days = found["a11"].days
    assert len(rows) == len(days)
    for day, coverage, left, spend, gift, top_up, _ in rows:
        entry = days[date.fromisoformat(str(day)[:10])]
        assert coverage == entry.coverage
        closing = entry.changes[-1].row.total if entry.changes else None
        assert number(left) == decimal(closing)
        expected = entry.amounts or (None, None, None, None)
        assert (number(spend), number(top_up), number(gift)) == tuple(
            decimal(expected[place]) for place in (0, 1, 3)
        )
