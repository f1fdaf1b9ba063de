"""What forecasts, statuses and surge alarms are worth, once the truth is known."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cases import Case

LEAST, MOST = 0.05, 365.0
"""Days: 0.0 counts as half a tenth, no end in sight as a year."""
CRITICAL = {"critical", "empty"}
LOW = CRITICAL | {"low"}
DAY = 24
MONTH = 30 * DAY
FAR = 6
"""Days left above which `critical` is a false alarm."""


@dataclass(frozen=True)
class Answer:
    """An estimator's answer to a case, in days. A mean has neither a status nor a range."""

    status: str | None
    days: float | None
    low: float | None = None
    high: float | None = None
    surge: float | None = None

    @property
    def is_forecast(self) -> bool:
        return self.status not in {"accumulating", "stale"}

    @property
    def is_alarm(self) -> bool:
        return self.surge is not None or self.status in CRITICAL


@dataclass(frozen=True)
class Judged:
    """A case with an estimator's answer."""

    case: Case
    answer: Answer


Figures = dict[str, float | None]
"""By measure; None where there is no case."""


def figures(rows: Sequence[Judged], spans: Sequence[tuple[Case, Sequence[Answer]]]) -> Figures:
    """All measures of one estimator.

    Args:
        rows: The cases of all purposes but "span".
        spans: Midnights, and the answers of each hour from there on.
    """
    by_purpose: dict[str, list[Judged]] = defaultdict(list)
    for row in rows:
        by_purpose[row.case.purpose].append(row)
    forecasts = by_purpose["forecast"]
    return {
        **_forecasts(forecasts),
        "critical_24": _share(row.answer.status in CRITICAL for row in by_purpose["run-out 1"]),
        "low_72": _share(row.answer.status in LOW for row in by_purpose["run-out 3"]),
        "false_critical": _share(
            row.case.truth > FAR for row in forecasts if row.answer.status == "critical"
        ),
        **_alarms(by_purpose["attack"]),
        **_hours(spans),
    }


def _forecasts(rows: Sequence[Judged]) -> Figures:
    if not rows:
        return {}
    errors, losses, widths = [], [], []
    below = above = 0
    for row in rows:
        answer, truth = row.answer, row.case.truth
        low, middle, high = (_log(value) for value in (answer.low, answer.days, answer.high))
        errors.append(abs(middle - _log(truth)))
        losses.append(
            sum(
                max(part * (_log(truth) - estimate), (part - 1) * (_log(truth) - estimate))
                for part, estimate in ((0.1, low), (0.5, middle), (0.9, high))
            )
        )
        widths.append(math.exp(high - low))
        below += truth < (MOST if answer.low is None else answer.low)
        # Tenths are rounded down: 2.4 stands for all below 2.5.
        above += answer.high is not None and truth >= answer.high + 0.1
    return {
        "error": median(errors),
        "inside": 1 - (below + above) / len(rows),
        "below": below / len(rows),
        "above": above / len(rows),
        "width": median(widths),
        "pinball": fmean(losses),
    }


def _log(days: float | None) -> float:
    return math.log(MOST if days is None else min(max(days, LEAST), MOST))


def _alarms(rows: Sequence[Judged]) -> Figures:
    """Of the attacks on accounts that were in no alarm before: alarms within N hours."""
    attacks: dict[tuple[str, int], dict[float, Answer]] = defaultdict(dict)
    for row in rows:
        attacks[row.case.account.kind, row.case.number][row.case.truth] = row.answer
    fair = [hours for hours in attacks.values() if 0 in hours and not hours[0].is_alarm]
    return {
        f"alarm_{within}": _share(
            any(answer.is_alarm for hour, answer in hours.items() if hour <= within)
            for hours in fair
        )
        for within in (2, 3)
    }


def _hours(spans: Sequence[tuple[Case, Sequence[Answer]]]) -> Figures:
    """Changes of the status, surge alarms that begin, and top-ups, per account and month."""
    if not spans:
        return {}
    months = sum(len(answers) for _, answers in spans) / MONTH
    changes = surges = top_ups = 0
    for case, answers in spans:
        top_ups += sum(
            case.hour < hour < case.hour + len(answers) for hour in case.account.topped_up
        )
        changes += sum(one.status != two.status for one, two in pairwise(answers))
        alarms = [hour for hour, answer in enumerate(answers) if answer.surge is not None]
        # One that is back within a day is the same, and one of the first hour began before.
        surges += sum(two - one > DAY for one, two in pairwise([-DAY, *alarms]))
    return {"changes": changes / months, "surges": surges / months, "top_ups": top_ups / months}


def _share(values: Iterable[bool]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


@dataclass(frozen=True)
class Measure:
    """What is measured, and its goal.

    Attributes:
        low: The least that meets it, if there is one.
        high: The most.
    """

    key: str
    name: str
    low: float | None = None
    high: float | None = None

    @property
    def goal(self) -> str:
        if self.low is None and self.high is None:
            return "-"
        if self.low is None:
            return f"at most {self.high}"
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"

    def is_met(self, figure: float, slack: float = 0.0) -> bool:
        """Whether a figure meets the goal, or misses it by less than this share of it."""
        low = -math.inf if self.low is None else self.low * (1 - slack)
        high = math.inf if self.high is None else self.high * (1 + slack)
        return low <= figure <= high


MEASURES = (
    Measure("error", "median absolute log error of `days_left`", high=0.11),
    Measure("inside", "truth inside [low, high]", 0.75, 0.85),
    Measure("below", "truth below low", high=0.13),
    Measure("above", "truth above high", high=0.13),
    Measure("width", "median of high / low", high=1.7),
    Measure("pinball", "pinball loss, 10 + 50 + 90%, against the models of before", high=0.83),
    Measure("critical_24", "run-outs that are `critical` 24 h before", 0.945),
    Measure("low_72", "run-outs that are `low` or worse 72 h before", 0.945),
    Measure("false_critical", "`critical` with more than 6 days left", high=0.10),
    Measure("changes", "changes of the status per account and month", high=4.1),
    Measure("alarm_2", "burn x20: alarm within 2 h", 0.80),
    Measure("alarm_3", "burn x20: alarm within 3 h", 0.88),
    Measure("surges", "surge alarms without an attack per account and month", high=0.25),
    Measure("top_ups", "top-ups per account and month"),
)


def against(figures_now: Figures, figures_before: Figures) -> Figures:
    """The same, with the pinball loss as a share of what it was before."""
    now, before = figures_now.get("pinball"), figures_before.get("pinball")
    return {**figures_now, "pinball": now / before if now is not None and before else None}
