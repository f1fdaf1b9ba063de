"""A small fixed part of `make bench-forecasts`: the goals, each with a tenth to spare."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import accounts
import cases
import judging
import pytest
import scoring
from parts import ROOT

if TYPE_CHECKING:
    from scoring import Figures

ACCOUNTS = range(12)
"""The first of those of the benchmark."""
FORECAST_HOURS = {0, 6, 12, 18}
"""Of the day; few, because each takes a build."""
ATTACK_HOUR = 15
HOURS = FORECAST_HOURS | set(range(ATTACK_HOUR, ATTACK_HOUR + 4))
PINBALL_BEFORE = 0.379
"""What the models of before lose on these forecasts."""
MEASURED = [
    measure for measure in scoring.MEASURES if measure.key not in {"changes", "surges", "top_ups"}
]


@pytest.fixture(scope="module")
def figures() -> Figures:
    make = accounts.simulated
    own = []
    for kind in accounts.KINDS:
        for number in ACCOUNTS:
            forecasts = cases.forecasts(make, kind, number, 12)
            own += [case for case in forecasts if case.hour_of_day in FORECAST_HOURS]
            own += [
                case for case in cases.run_outs(make, kind, number) if case.hour_of_day in HOURS
            ]
            if number % 3 == 0:
                own += cases.attacks(make, kind, number, ATTACK_HOUR)
    with (
        judging.database() as (connection, socket_folder, folder),
        closing(judging.Models("new", ROOT / "transform", socket_folder, folder)) as models,
    ):
        answers = judging.judged(own, connection, [models])["new"]
    rows = [scoring.Judged(case, answers[case.name]) for case in own]
    return scoring.figures(
        [row for row in rows if row.case.purpose != "forecast" or row.answer.is_forecast], []
    )


@pytest.mark.e2e
@pytest.mark.parametrize("measure", MEASURED, ids=lambda measure: measure.key)
def test_no_goal_is_missed_by_a_tenth(measure: scoring.Measure, figures: Figures) -> None:
    figure = figures[measure.key]
    assert figure is not None
    if measure.key == "pinball":
        figure /= PINBALL_BEFORE
    assert measure.is_met(figure, slack=0.1), f"{measure.name}: {figure:.3f}, {measure.goal}"


def account(burn: int = 10, paid: int = 100, gift: int = 100) -> accounts.Account:
    hours = 48
    return accounts.Account(
        "any", [burn] * hours, [paid] * hours, [gift] * hours, frozenset({3}), frozenset()
    )


def test_the_truth_counts_a_gift_until_it_expires() -> None:
    # Three hours of the gift, then ten of what was paid.
    assert account().days_left(0) == pytest.approx(13 / 24)
    assert account(gift=15).days_left(0) == pytest.approx(11.5 / 24)
    assert account(paid=1000).days_left(0) is None


def test_a_range_holds_what_its_tenths_stand_for() -> None:
    rows = [
        scoring.Judged(
            cases.Case(0, account(), 0, "forecast", truth), scoring.Answer("ok", 2.0, 1.0, 4.0)
        )
        for truth in (0.9, 1.0, 4.09, 4.1)
    ]
    figures = scoring.figures(rows, [])
    assert (figures["inside"], figures["below"], figures["above"]) == (0.5, 0.25, 0.25)
    assert figures["width"] == pytest.approx(4.0)


def test_an_alarm_counts_only_where_there_was_none_before() -> None:
    rows = [
        scoring.Judged(
            cases.Case(number, account(), hour, "attack", hour),
            scoring.Answer(status, 9.0, surge=surge),
        )
        for number, statuses in enumerate([["ok"] * 4, ["critical"] * 4])
        for hour, (status, surge) in enumerate(zip(statuses, [None, None, None, 5.0], strict=True))
    ]
    figures = scoring.figures(rows, [])
    assert (figures["alarm_2"], figures["alarm_3"]) == (0.0, 1.0)


def test_a_surge_counts_once_a_day_and_not_where_it_began_before() -> None:
    surging = {0, 30, 40, 70}
    answers = [
        scoring.Answer("ok", 9.0, surge=5.0 if hour in surging else None) for hour in range(72)
    ]
    figures = scoring.figures([], [(cases.Case(0, account(), -1, "span", 0), answers)])
    assert figures["surges"] == pytest.approx(2 / 0.1)
    assert figures["changes"] == 0
