"""Which snapshot interval a run belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pendulum

from tap_balance.errors import SettingsError

_DAY = 86_400
# pendulum lets six and more digits overflow without a word; a day has five.
_OVERLONG_NUMBER = re.compile(r"[0-9]{6}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One interval of a day, into which all records of a run fall.

    Attributes:
        at: Start of the interval, UTC, whole seconds.
    """

    at: pendulum.DateTime

    @property
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
        SettingsError: It is no such duration.
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
