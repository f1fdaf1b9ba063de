"""Which snapshot interval a run belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pendulum

from tap_balance.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAY = 86_400
_MAX_AHEAD = 300
"""Seconds that `snapshot_at` may be ahead of this machine's clock."""

# ISO 8601, basic or extended, with the offset that says which instant is meant.
_INSTANT = re.compile(
    r"[0-9]{4}(-?)[0-9]{2}\1[0-9]{2}[Tt ][0-9]{2}(:?[0-9]{2}){0,2}([.,][0-9]+)?"
    r"(Z|z|[+-][0-9]{2}(:?[0-9]{2})?)"
)
# pendulum lets six and more digits overflow without a word; a day has five.
_OVERLONG_NUMBER = re.compile(r"[0-9]{6}")


@dataclass(frozen=True)
class Snapshot:
    """One interval of a day, into which all records of a run fall.

    Attributes:
        at: Start of the interval, UTC, whole seconds.
    """

    at: pendulum.DateTime

    @cached_property
    def timestamp(self) -> str:
        """The start of the interval as the records carry it, e.g. "2026-01-31T10:00:00Z"."""
        return self.at.strftime("%Y-%m-%dT%H:%M:%SZ")

    def key(self, account: str) -> str:
        """The primary key of an account's record: the same for every run in the interval."""
        return f"{account}@{self.timestamp}"


def parse_interval(text: str) -> int:
    """Read an ISO 8601 duration that divides a day.

    Returns:
        The length of the interval in seconds, from 1 to 86400.

    Raises:
        SettingsError: It is not such a duration.
    """
    problem = (
        "snapshot_interval: must be an ISO 8601 duration that divides a day, "
        "such as PT15M, PT1H or P1D"
    )
    try:
        duration = pendulum.parse(text)
    except ValueError:
        raise SettingsError(problem) from None
    if not isinstance(duration, pendulum.Duration) or _OVERLONG_NUMBER.search(text):
        raise SettingsError(problem)
    seconds = duration.in_seconds()
    # Months and years have no fixed length; pendulum would count them as 30 and 365 days.
    if duration.months or duration.years or duration.microseconds or seconds < 1 or _DAY % seconds:
        raise SettingsError(problem)
    return seconds


def snapshot_of_run(settings: Mapping[str, Any], now: pendulum.DateTime) -> Snapshot:
    """Find the interval that a run belongs to.

    Args:
        settings: `snapshot_at` where it is set, `snapshot_interval` where it is not the default.
        now: When the run began.

    Raises:
        SettingsError: `snapshot_at` is not the start of an interval, or not near enough to now.
            The API only reports the current balance.
    """
    text = settings.get("snapshot_interval", "PT1S")
    interval = parse_interval(text)
    if "snapshot_at" not in settings:
        return snapshot_of(now, interval)
    instant = _parse_instant(settings["snapshot_at"])
    start = snapshot_of(instant, interval)
    problem = ""
    if instant != start.at:
        end = Snapshot(start.at.add(seconds=interval))
        nearest = start if instant - start.at < end.at - instant else end
        problem = f"is not the start of an interval of {text}; the nearest is {nearest.timestamp}"
    elif instant > now.add(seconds=_MAX_AHEAD):
        problem = "is more than five minutes ahead of the clock"
    elif instant < now.subtract(seconds=2 * interval):
        problem = "is more than two intervals ago, and the API only reports the current balance"
    if problem:
        msg = f"snapshot_at: {problem}"
        raise SettingsError(msg)
    return start


def _parse_instant(text: str) -> pendulum.DateTime:
    problem = (
        "snapshot_at: must be an ISO 8601 date and time with its offset from UTC, "
        "such as 2026-01-31T10:00:00Z"
    )
    if not _INSTANT.fullmatch(text):
        raise SettingsError(problem)
    try:
        instant = pendulum.parse(text.upper())
    except ValueError:
        raise SettingsError(problem) from None
    # At either end of the calendar, there is no room for an offset or another interval.
    if (
        not isinstance(instant, pendulum.DateTime)
        or not 1 < instant.year < pendulum.DateTime.max.year
    ):
        raise SettingsError(problem)
    return instant.in_timezone("UTC")


def snapshot_of(instant: pendulum.DateTime, interval: int) -> Snapshot:
    """Find the interval that an instant falls into; intervals count from midnight UTC.

    Args:
        instant: When the run began.
        interval: Length of an interval in seconds; divides a day.
    """
    midnight = instant.in_timezone("UTC").start_of("day")
    elapsed = int((instant - midnight).total_seconds())
    return Snapshot(midnight.add(seconds=elapsed - elapsed % interval))


def utc_microseconds(instant: pendulum.DateTime) -> str:
    """Write an instant with six decimal places, e.g. "2026-01-31T10:00:00.000123Z"."""
    return instant.in_timezone("UTC").strftime("%Y-%m-%dT%H:%M:%S.%fZ")
