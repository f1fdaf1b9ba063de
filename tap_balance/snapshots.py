"""Which snapshot interval a run belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pendulum

from tap_balance.errors import SettingsError

# ISO 8601, basic or extended, with the offset that says which instant is meant.
_INSTANT = re.compile(
    r"[0-9]{4}(-?)[0-9]{2}\1[0-9]{2}[Tt ][0-9]{2}(:?[0-9]{2}){0,2}([.,][0-9]+)?"
    r"(Z|z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)"
)
# A day has five digits of seconds. Months and years have no fixed length.
_DAY = 86_400
_NUMBER = r"([0-9]{1,5}(?:[.][0-9]{1,6})?)"
_DURATION = re.compile(
    rf"P(?:{_NUMBER}D)?(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?"
)


def parse_interval(text: str) -> int:
    """Read an ISO 8601 duration in days, hours, minutes and seconds that divides a day.

    Returns:
        The length of the interval in seconds, from 1 to 86400.

    Raises:
        SettingsError: It is not such a duration.
    """
    match = _DURATION.fullmatch(text.replace(",", "."))
    days, hours, minutes, seconds = map(float, match.groups("0") if match else "0000")
    length = timedelta(days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    if length >= 1 and length.is_integer() and _DAY % length == 0:
        return int(length)
    raise SettingsError(
        "snapshot_interval: must be an ISO 8601 duration that divides a day, "
        "such as PT15M, PT1H or P1D"
    )


def snapshot_of_run(settings: Mapping[str, Any], now: pendulum.DateTime) -> str:
    """Find the interval that a run belongs to.

    Args:
        settings: `snapshot_at` where it is set, `snapshot_interval` where it is not the default.
        now: When the run began.

    Returns:
        The start of the interval, as the records carry it, e.g. "2026-01-31T10:00:00Z".

    Raises:
        SettingsError: `snapshot_at` is not the start of an interval, or not near enough to now.
    """
    text = settings.get("snapshot_interval", "PT1S")
    interval = parse_interval(text)
    if "snapshot_at" not in settings:
        return start_of_interval(now, interval)
    instant = _parse_instant(settings["snapshot_at"])
    if instant is None:
        problem = (
            "must be an ISO 8601 date and time with its offset from UTC, "
            "such as 2026-01-31T10:00:00Z"
        )
    elif instant > now.add(minutes=5):
        problem = "is more than five minutes ahead of the clock"
    elif instant < now.subtract(seconds=2 * interval):
        problem = "is more than two intervals ago, and the API only reports the current balance"
    elif instant.timestamp() % interval:
        nearest = start_of_interval(instant.add(seconds=interval / 2), interval)
        problem = f"is not the start of an interval of {text}; the nearest is {nearest}"
    else:
        return start_of_interval(instant, interval)
    raise SettingsError(f"snapshot_at: {problem}")


def _parse_instant(text: str) -> pendulum.DateTime | None:
    try:
        instant = pendulum.parse(text.upper()) if _INSTANT.fullmatch(text) else None
    except ValueError:
        return None
    return instant if isinstance(instant, pendulum.DateTime) else None


def start_of_interval(instant: pendulum.DateTime, interval: int) -> str:
    """Write the start of the interval that an instant falls into, e.g. "2026-01-31T10:00:00Z".

    Intervals divide a day and count from midnight UTC, so they count from the epoch as well.
    """
    start = pendulum.from_timestamp(instant.int_timestamp // interval * interval)
    return start.to_iso8601_string()
