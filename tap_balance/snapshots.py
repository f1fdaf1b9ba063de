"""Which snapshot interval a run belongs to."""

from __future__ import annotations

import re
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
    r"(Z|z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)"
)
_DURATION = re.compile(r"P([0-9]+[.,]?[0-9]*[YMWD])*(T([0-9]+[.,]?[0-9]*[HMS])+)?")
# pendulum lets six and more digits overflow without a word; a day has five.
_OVERLONG_NUMBER = re.compile(r"[0-9]{6}")


def parse_interval(text: str) -> int:
    """Read an ISO 8601 duration that divides a day.

    Returns:
        The length of the interval in seconds, from 1 to 86400.

    Raises:
        SettingsError: It is not such a duration.
    """
    try:
        duration = pendulum.parse(text) if _DURATION.fullmatch(text) else None
    except ValueError:
        duration = None
    if isinstance(duration, pendulum.Duration) and not _OVERLONG_NUMBER.search(text):
        seconds = duration.in_seconds()
        # Months and years have no fixed length; pendulum would count them as 30 and 365 days.
        inexact = duration.months or duration.years or duration.microseconds
        if not inexact and seconds >= 1 and _DAY % seconds == 0:
            return seconds
    msg = (
        "snapshot_interval: must be an ISO 8601 duration that divides a day, "
        "such as PT15M, PT1H or P1D"
    )
    raise SettingsError(msg)


def snapshot_of_run(settings: Mapping[str, Any], now: pendulum.DateTime) -> str:
    """Find the interval that a run belongs to.

    Args:
        settings: `snapshot_at` where it is set, `snapshot_interval` where it is not the default.
        now: When the run began.

    Returns:
        The start of the interval, as the records carry it, e.g. "2026-01-31T10:00:00Z".

    Raises:
        SettingsError: `snapshot_at` is not the start of an interval, or not near enough to now.
            The API only reports the current balance.
    """
    text = settings.get("snapshot_interval", "PT1S")
    interval = parse_interval(text)
    if "snapshot_at" not in settings:
        return utc_seconds(start_of_interval(now, interval))
    instant = _parse_instant(settings["snapshot_at"])
    start = start_of_interval(instant, interval)
    problem = ""
    if instant != start:
        end = start.add(seconds=interval)
        nearest = utc_seconds(start if instant - start < end - instant else end)
        problem = f"is not the start of an interval of {text}; the nearest is {nearest}"
    elif instant > now.add(seconds=_MAX_AHEAD):
        problem = "is more than five minutes ahead of the clock"
    elif instant < now.subtract(seconds=2 * interval):
        problem = "is more than two intervals ago, and the API only reports the current balance"
    if problem:
        msg = f"snapshot_at: {problem}"
        raise SettingsError(msg)
    return utc_seconds(start)


def _parse_instant(text: str) -> pendulum.DateTime:
    try:
        instant = pendulum.parse(text.upper()) if _INSTANT.fullmatch(text) else None
    except ValueError:
        instant = None
    # At either end of the calendar, there is no room for an offset or another interval.
    last = pendulum.DateTime.max.year
    if not isinstance(instant, pendulum.DateTime) or not 1 < instant.year < last:
        msg = (
            "snapshot_at: must be an ISO 8601 date and time with its offset from UTC, "
            "such as 2026-01-31T10:00:00Z"
        )
        raise SettingsError(msg)
    return instant


def start_of_interval(instant: pendulum.DateTime, interval: int) -> pendulum.DateTime:
    """Find the start of the interval that an instant falls into.

    Intervals divide a day and count from midnight UTC, so they count from the epoch as well.
    """
    return pendulum.from_timestamp(instant.int_timestamp // interval * interval)


def utc_seconds(instant: pendulum.DateTime) -> str:
    """Write an instant in whole seconds, e.g. "2026-01-31T10:00:00Z"."""
    return instant.in_timezone("UTC").strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_microseconds(instant: pendulum.DateTime) -> str:
    """Write an instant in UTC with six decimal places, e.g. "2026-01-31T10:00:00.000123Z"."""
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
