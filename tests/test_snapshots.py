"""Snapshot intervals: which durations are one, and which interval an instant is in."""

from __future__ import annotations

import pendulum
import pytest

from tap_balance.accounts import Account
from tap_balance.amounts import Amounts
from tap_balance.client import Balance
from tap_balance.errors import SettingsError
from tap_balance.snapshots import (
    parse_interval,
    snapshot_of_run,
    start_of_interval,
)
from tap_balance.streams import make_record


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT1S", 1),
        ("PT15M", 900),
        ("PT1H", 3600),
        ("PT1H30M", 5400),
        ("PT24H", 86400),
        ("P1D", 86400),
        ("PT0.5H", 1800),
        ("PT0,25M", 15),
    ],
)
def test_an_interval_that_divides_a_day_is_taken(text: str, seconds: int) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["PT7H", "PT25H", "P2D", "P1W", "P1M", "P1Y", "PT0S", "PT0.5S", "PT1.5S", "-PT1H", "1h", "",
     "P", "2026-01-01", "PT4294970896S", "PT1H/PT2H", "2026-01-01/PT1H",
     "2026-01-01T00:00:00Z/PT1H"],
)  # fmt: skip
def test_any_other_interval_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match="snapshot_interval: must be an ISO 8601 duration"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("instant", "interval", "start"),
    [
        ("2026-01-31T10:59:59.999999Z", 3600, "2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00Z", 3600, "2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00Z", 86400, "2026-01-31T00:00:00Z"),
        ("2026-01-31T23:59:59.5Z", 1, "2026-01-31T23:59:59Z"),
        ("2026-03-08T02:30:00-05:00", 3600, "2026-03-08T07:00:00Z"),
    ],
)
def test_an_instant_falls_into_its_utc_interval(instant: str, interval: int, start: str) -> None:
    moment = pendulum.parse(instant)
    assert isinstance(moment, pendulum.DateTime)
    assert start_of_interval(moment, interval) == start


def test_instants_are_written_with_six_places() -> None:
    moment = pendulum.datetime(2026, 1, 31, 10, microsecond=123)
    account = Account(
        "main", "fake-key", "fake-secret", "sms", "https://balance.example/v1/balance"
    )
    record = make_record(account, Balance(Amounts(1, 0, 1), moment), "2026-01-31T10:00:00Z")
    assert record["observed_at"] == "2026-01-31T10:00:00.000123Z"


RUN = pendulum.datetime(2026, 1, 31, 10, 20)


def snapshot_at(text: str, interval: str = "PT1H") -> str:
    settings = {"snapshot_at": text, "snapshot_interval": interval}
    return snapshot_of_run(settings, RUN)


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T10:00:00Z", "2026-01-31t10:00:00z", "2026-01-31T10:00:00+00:00",
     "2026-01-31 10:00:00+00:00", "2026-01-31T10:00:00.000000Z", "2026-01-31T18:00:00+08:00",
     "2026-01-31T05:30:00-0430", "20260131T100000Z", "2026-01-31T10Z", "2026-01-31T10:00-00:00"],
)  # fmt: skip
def test_one_instant_can_be_spelled_in_many_ways(text: str) -> None:
    assert snapshot_at(text) == "2026-01-31T10:00:00Z"


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T10:00:00", "2026-01-31", "10:00", "now", "PT1H", "1769853600", "", " ",
     "2026-01-31T10:00:00 UTC", "2026-02-30T10:00:00Z", "2026-01-31T25:00:00Z",
     "2026-01-31T10:00:00Z\n"],
)  # fmt: skip
def test_what_does_not_say_which_instant_is_meant_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="snapshot_at: must be an ISO 8601 date and time"):
        snapshot_at(text)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("2026-01-31T10:20:00Z", "2026-01-31T10:00:00Z"),
        ("2026-01-31T09:30:00Z", "2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00.5Z", "2026-01-31T10:00:00Z"),
    ],
)
def test_what_is_not_the_start_of_an_interval_comes_with_the_nearest(
    text: str, nearest: str
) -> None:
    problem = f"is not the start of an interval of PT1H; the nearest is {nearest}"
    with pytest.raises(SettingsError, match=f"^snapshot_at: {problem}$"):
        snapshot_at(text)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("2026-01-31T10:25:00Z", "PT5M"),
        ("2026-01-31T10:10:00Z", "PT5M"),
        ("2026-01-31T09:00:00Z", "PT1H"),
        ("2026-01-30T00:00:00Z", "P1D"),
    ],
)
def test_an_interval_near_the_clock_is_taken(text: str, interval: str) -> None:
    assert snapshot_at(text, interval) == text


@pytest.mark.parametrize(
    ("text", "interval", "problem"),
    [
        ("2026-01-31T10:26:00Z", "PT1M", "is more than five minutes ahead of the clock"),
        ("2026-01-31T23:59:59Z", "PT1H", "is more than five minutes ahead of the clock"),
        ("9999-12-31T23:59:59-01:00", "PT1H", "is more than five minutes ahead of the clock"),
        ("2026-01-31T11:00:00Z", "PT1H", "is more than five minutes ahead of the clock"),
        ("2026-01-31T10:05:00Z", "PT5M", "is more than two intervals ago"),
        ("0001-01-01T00:00:00+01:00", "PT1H", "is more than two intervals ago"),
        ("2026-01-31T08:00:00Z", "PT1H", "is more than two intervals ago"),
        ("2026-01-29T00:00:00Z", "P1D", "is more than two intervals ago"),
    ],
)
def test_a_balance_of_now_is_not_stored_under_another_time(
    text: str, interval: str, problem: str
) -> None:
    with pytest.raises(SettingsError, match=f"^snapshot_at: {problem}"):
        snapshot_at(text, interval)
