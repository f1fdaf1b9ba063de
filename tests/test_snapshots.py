"""Snapshot intervals: which durations are one, and which interval an instant is in."""

from __future__ import annotations

import pendulum
import pytest

from tap_balance.errors import SettingsError
from tap_balance.snapshots import parse_interval, snapshot_of, utc_microseconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT1S", 1),
        ("PT15M", 900),
        ("PT1H", 3600),
        ("PT1H30M", 5400),
        ("PT24H", 86400),
        ("P1D", 86400),
    ],
)
def test_an_interval_that_divides_a_day_is_taken(text: str, seconds: int) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["PT7H", "PT25H", "P2D", "P1W", "P1M", "P1Y", "PT0S", "PT0.5S", "PT1.5S", "-PT1H", "1h", "",
     "P", "2026-01-01", "PT4294970896S"],
)  # fmt: skip
def test_any_other_interval_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match="snapshot_interval: must be an ISO 8601 duration"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("instant", "interval", "key"),
    [
        ("2026-01-31T10:59:59.999999Z", 3600, "main@2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00Z", 3600, "main@2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00Z", 86400, "main@2026-01-31T00:00:00Z"),
        ("2026-01-31T23:59:59.5Z", 1, "main@2026-01-31T23:59:59Z"),
        ("2026-03-08T02:30:00-05:00", 3600, "main@2026-03-08T07:00:00Z"),
    ],
)
def test_an_instant_falls_into_its_utc_interval(instant: str, interval: int, key: str) -> None:
    moment = pendulum.parse(instant)
    assert isinstance(moment, pendulum.DateTime)
    assert snapshot_of(moment, interval).key("main") == key


def test_instants_are_written_with_six_places() -> None:
    moment = pendulum.datetime(2026, 1, 31, 10, microsecond=123)
    assert utc_microseconds(moment) == "2026-01-31T10:00:00.000123Z"
