"""The dbt project on a real Postgres and on the Snowflake emulator, beside independent Python."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
import yaml
from bank import Account
from modelled import CHANGES, RUNWAY
from parts import ROOT
from runners import Destination
from targets import Load, Postgres
from warehouses import TRANSFORM, as_text, dbt_in
from webhooks import webhooks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import embedded
    from bank import Bank
    from marts import Marts
    from modelled import History
    from runners import Meltano
    from warehouses import Row

pytestmark = pytest.mark.e2e


def ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: tuple("" if value is None else value for value in row))


def test_the_unit_tests_pass_with_every_variable_fixed(history: History, tmp_path: Path) -> None:
    project = TRANSFORM / "integration_tests"
    fixed, given = (
        yaml.safe_load((folder / "dbt_project.yml").read_text(encoding="utf-8"))["vars"]
        for folder in (project, TRANSFORM)
    )
    assert fixed == given
    done = dbt_in(project, history.warehouse, tmp_path, "test", "--select", "test_type:unit")
    assert done.status == 0, done.log
    assert "PASS=18 WARN=0 ERROR=0 SKIP=0" in done.log


def test_changes_are_what_python_finds(history: History, expected: list[Marts]) -> None:
    for build, then in zip(history.builds, expected, strict=True):
        nothing: tuple[None, ...] = (None,) * 4
        changes = [
            (
                *change.label,
                change.row.at,
                change.before and change.before.at,
                change.is_gap,
                change.before and change.before.paid,
                change.row.paid,
                change.before and change.before.gift,
                change.row.gift,
                change.row.total,
                *(change.amounts or nothing),
            )
            for change in then.changes
        ]
        assert ordered(build.changes) == ordered(as_text(changes))


def test_days_are_what_python_finds(history: History, expected: list[Marts]) -> None:
    nothing: tuple[None, ...] = (None,) * 4
    for build, then in zip(history.builds, expected, strict=True):
        days = [
            (
                *series[:2],
                found.currency,
                day,
                found.coverage,
                len(found.changes),
                *(found.ends if found.changes else nothing),
                *(found.amounts or nothing),
                found.highest_per_hour,
            )
            for (series, day), found in then.days.items()
        ]
        assert ordered(build.daily) == ordered(as_text(days))
    assert {row[4] for row in history.builds[-1].daily} == {"complete", "partial", "unknown"}


def test_the_latest_are_what_python_finds(history: History, expected: list[Marts]) -> None:
    for build, then in zip(history.builds, expected, strict=True):
        newest = {change.row.account: change.row for change in then.changes}
        latest = [
            (
                row.account,
                row.at,
                max((build.as_of - row.observed_at) // timedelta(seconds=1), 0),
                row.paid,
                *row.row[-3:],
            )
            for row in newest.values()
        ]
        assert ordered(build.latest) == ordered(as_text(latest))


def test_runways_are_what_python_finds(history: History, expected: list[Marts]) -> None:
    statuses = set()
    for build, then in zip(history.builds, expected, strict=True):
        runways = [
            (
                account,
                runway.status,
                runway.complete_days,
                runway.per_day,
                *(None if days is None else f"{days:.1f}" for days in runway.days_left),
                runway.runs_out_on,
                runway.surge_hours_left,
                runway.top_up,
            )
            for account, runway in then.runways.items()
        ]
        assert ordered(build.runway) == ordered(as_text(runways))
        statuses |= {runway.status for runway in then.runways.values()}
    assert statuses == {"ok", "low", "critical", "empty", "accumulating", "stale"}


def test_alerts_fail_or_warn_and_name_accounts_and_numbers(history: History) -> None:
    build = history.builds[-1]
    done = history.dbt("test", "--select", "tag:alert")
    assert done.status == 1
    alerts = [row for row in build.alerts if row[4] != "over"]
    counts = Counter(row[3] for row in alerts)
    assert f"FAIL {counts['error']} alerts_that_need_a_person" in done.log
    assert f"WARN {counts['warn']} alerts_to_know_of" in done.log
    # Those accounts that are too new to be judged are no alert.
    expected = {(row[0], row[1]) for row in build.runway if row[1] not in {"ok", "accumulating"}}
    found = {(row[1], row[2]) for row in alerts if row[2] != "surge"}
    assert found == {*expected, ("a25", "unjudged")}
    printed = re.sub("\033.*?m", "", done.log)
    for row in alerts:
        assert f"ALERT ({'fail' if row[3] == 'error' else 'warn'}) {row[7]}\n" in printed
        assert str(row[7]).startswith(f"account {row[1]} ")


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_building_makes_no_index_on_the_loaded_table(history: History) -> None:
    names = "SELECT indexname FROM pg_indexes WHERE schemaname = 'tap_balance'"
    assert history.warehouse.query(names) == []


def test_a_time_before_what_is_built_is_an_error(history: History) -> None:
    done = history.dbt("run", as_of=history.builds[0].as_of)
    assert done.status == 1, done.log
    assert "as_of is earlier than what has been built; add --full-refresh" in done.log
    assert ordered(history.warehouse.query(CHANGES)) == ordered(history.builds[-1].changes)


@pytest.mark.parametrize("history", ["postgres"], indirect=True)
def test_a_changed_setting_counts_for_all_days_that_are_replayed(history: History) -> None:
    def runways(*options: str, margin: int = 20) -> list[Row]:
        models = ("int_tap_balance__decisions", "int_tap_balance__levels", "balance_runway")
        done = history.dbt("run", *options, "--select", *models, release_margin_percent=margin)
        assert done.status == 0, done.log
        return ordered(history.warehouse.query(RUNWAY))

    changed = runways(margin=80)
    assert changed == runways("--full-refresh", margin=80)
    assert changed != ordered(history.builds[-1].runway)
    assert runways() == ordered(history.builds[-1].runway)


@pytest.mark.parametrize("history", ["snowflake"], indirect=True)
def test_a_text_reaches_the_database_as_it_is(history: History) -> None:
    text = "it's \\n a \\' \\\\ test\\"
    done = history.dbt(
        "--quiet",
        "show",
        "--inline",
        "select {{ text_literal(var('text')) }} as said",
        "--output=json",
        text=text,
    )
    assert done.status == 0, done.log
    (row,) = json.loads(done.log[done.log.index("{") :])["show"]
    assert list(row.values()) == [text]


def test_dbt_leaves_no_trace_of_telemetry(history: History) -> None:
    # It would keep the sender's name beside the profile.
    assert not (ROOT / "transform" / ".user.yml").exists()
    assert not (history.folder / ".user.yml").exists()


def test_what_meltano_loads_it_judges_and_an_empty_account_is_an_alert(
    postgres: embedded.Postgres, meltano_project: Meltano, bank: Bank, tmp_path: Path
) -> None:
    now = datetime.now(timezone.utc).isoformat()
    accounts = [Account("example"), Account("empty", 0, currency="USD")]
    with closing(Postgres(postgres)) as target, webhooks() as hooks:
        load = Load(bank.settings(accounts), now)
        assert Destination("postgres meltano", target, meltano_project).load(load) == 0
        steps = ("dbt-postgres:build", "dbt-postgres:notify", "dbt-postgres:alert")
        with pytest.raises(subprocess.CalledProcessError) as ended:
            meltano_project.run(
                "--environment=prod",
                "run",
                "--no-install",
                *steps,
                env={
                    "DBT_POSTGRES_HOST": postgres.socket_folder,
                    "DBT_POSTGRES_DBNAME": target.name,
                    "DBT_TARGET_PATH": str(tmp_path),
                    "DBT_LOG_PATH": str(tmp_path),
                    "APPRISE_URLS": f"json://127.0.0.1:{hooks.port}/",
                },
            )
        (posted,) = hooks.taken()
        assert posted.body["message"].startswith("new: account empty is empty: 0.00 USD at ")
        assert "ALERT (fail) account empty is empty: 0.00 USD at " in (
            ended.value.stdout + ended.value.stderr
        )
        rows = target.query(
            "SELECT account, status, total_balance10000 FROM tap_balance_marts.balance_runway"
        )
        assert sorted(rows) == [["empty", "empty", 0], ["example", "accumulating", 123456]]
