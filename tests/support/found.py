"""What independent Python finds about each account, in the words of the report's page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from modelled import PAGE_MADE_AT

if TYPE_CHECKING:
    import marts
    from history import Snapshot

DAY = timedelta(days=1)
SIGNS = {
    "empty": "■",
    "critical": "▲",
    "low": "◆",
    "stale": "?",
    "accumulating": "○",
    "ok": "✓",
}


def span(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    if seconds < 3600:
        return f"{seconds // 60} minutes" if seconds >= 120 else "1 minute"
    hours = seconds // 3600
    if hours < 48:
        return f"{hours} hours" if hours > 1 else "1 hour"
    return f"{hours // 24:,} days"


@dataclass
class Found:
    """What independent Python finds about an account."""

    row: Snapshot
    currency: str | None
    runway: marts.Runway
    days: dict[date, marts.Day]
    """Of its present product and currency."""

    every_day: list[tuple[str | None, date, marts.Day]]
    """Of all that it had, with the currency that is known by now."""

    @property
    def end(self) -> datetime | None:
        """When it runs out; at the latest pace where that is far more than usual."""
        if self.runway.status in {"stale", "empty"}:
            return None
        ends = []
        if self.runway.surge_hours_left is not None:
            ends.append(self.row.at + timedelta(hours=float(self.runway.surge_hours_left)))
        if self.runway.runs_out_at and self.runway.status != "accumulating":
            ends.append(self.runway.runs_out_at)
        elif self.runway.runs_out_on and self.runway.status != "accumulating":
            midnight = datetime.combine(self.runway.runs_out_on, datetime.min.time())
            days = float(self.runway.days_left[0] or 0)
            ends.append(max(self.row.at + timedelta(days=days), midnight))
        return min(ends, default=None)

    @property
    def runs_out(self) -> str:
        if not self.end:
            return {
                "stale": "not known", "empty": "nothing left", "accumulating": "not known yet",
            }.get(self.runway.status, "no end in sight")  # fmt: skip
        away = self.end - PAGE_MADE_AT
        words = f"in {span(away)}"
        if away <= timedelta(0):
            words = "by now"
        when = f"{self.end:%Y-%m-%d}"
        if self.end - self.row.at < 2 * DAY:
            day = {date(2026, 4, 1): "today", date(2026, 4, 2): "tomorrow"}
            when = f"{day.get(self.end.date(), when)} {self.end:%H:%M} UTC"
        pace = "" if self.runway.surge_hours_left is None else " at this pace"
        return f"{words} ({when}){pace}"

    @property
    def status(self) -> str:
        urgent = self.runway.surge_hours_left is not None and self.end
        return f"{'! surge; ' if urgent else ''}{SIGNS[self.runway.status]} {self.runway.status}"


def found_in(expected: marts.Marts) -> dict[str, Found]:
    days = expected.days
    newest = {change.row.account: change for change in expected.changes}
    return {
        name: Found(
            change.row,
            change.currency,
            expected.runways[name],
            {day: entry for (series, day), entry in days.items() if series == change.series},
            [(series[2], day, entry) for (series, day), entry in days.items() if series[0] == name],
        )
        for name, change in newest.items()
    }
