"""A dbt project of somebody else's installs transform/ as a package: what may not break there."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from parts import VENVS
from shop import CRITICAL, VERSIONS, shop_of
from webhooks import webhooks

if TYPE_CHECKING:
    from pathlib import Path

    import embedded
    from shop import Shop

pytestmark = pytest.mark.e2e

MARTS = "shop__prepaid"
"""The schema that the project's generate_schema_name makes of the package's."""


@pytest.fixture(scope="session", params=VERSIONS)
def shop(
    request: pytest.FixtureRequest,
    postgres: embedded.Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shop:
    if sys.version_info >= (3, 14) and request.param != max(VERSIONS):
        pytest.skip(f"dbt {request.param} does not run on Python 3.14")
    return shop_of(request.param, postgres, tmp_path_factory.mktemp("shop"))


def test_it_installs_and_builds_empty_and_full_with_an_account_that_is_critical(
    shop: Shop,
) -> None:
    assert shop.steps["deps"].status == 0
    for name in ("empty", "first build", "next build"):
        step = shop.steps[name]
        assert (name, step.status) == (name, 0), step.log[-3000:]
        assert step.nodes_other_than("success", "pass", "warn", "no-op") == {}
    assert shop.query("select account, status from shop.orders order by 1") == [
        (CRITICAL, "critical"), ("blog", "low"),
    ]  # fmt: skip


def test_no_unit_test_of_the_package_runs_in_the_project(shop: Shop) -> None:
    assert [node for node in shop.steps["first build"].nodes if node.startswith("unit_test.")] == []


def test_an_alert_of_the_projects_own_is_left_alone(shop: Shop) -> None:
    own = "test.shop_analytics.orders_without_an_owner"
    assert shop.steps["first build"].nodes[own] == "warn"
    assert shop.steps["alerts"].nodes[own] == "warn"
    hooks = [node for node in shop.steps["first build"].nodes if node.startswith("operation.")]
    assert hooks == []


def test_alerts_fail_where_they_are_selected_and_name_the_account(shop: Shop) -> None:
    step = shop.steps["alerts"]
    assert step.status == 1
    assert "fail" in step.nodes.values()
    assert step.nodes_other_than("pass", "warn", "fail") == {}
    assert f"account {CRITICAL} is critical" in step.log


def test_times_with_a_zone_are_utc_in_every_run(shop: Shop) -> None:
    """The project's table `hours` has what balance_changes had after an incremental run."""
    loaded = shop.query(
        "select account, snapshot_at at time zone 'UTC' from raw_prepaid.engagelab order by 1, 2"
    )
    assert shop.query("select * from shop.hours order by 1, 2") == loaded


def test_freshness_follows_from_the_interval(shop: Shop) -> None:
    source = "source.tap_balance.tap_balance.balance"
    assert shop.steps["fresh"].nodes == {source: "pass"}
    assert shop.steps["fresh"].status == 0
    assert shop.steps["old"].nodes == {source: "error"}
    assert shop.steps["old"].status == 1


def test_an_index_is_made_by_its_operation_only(shop: Shop) -> None:
    for step in ("index", "index again"):
        assert shop.steps[step].status == 0, shop.steps[step].log
        assert "balance_snapshot_at" in shop.steps[step].log
    assert shop.query(
        "select tablename from pg_indexes where schemaname = 'raw_prepaid' "
        "and indexdef like '%(snapshot_at)'"
    ) == [("engagelab",)]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("critical above low", "critical_days (10) must not be greater than low_days (5)"),
        ("text for a list", "retired_accounts: must be a list of account names, not shop"),
        ("text for a number", "critical_days: must be a number from 0.01 to 3650, not three"),
        (
            "unknown threshold",
            (
                "account_thresholds of shop: unknown threshold crtical_days; known are "
                "critical_days, low_days, target_days, min_balance"
            ),
        ),
    ],
)
def test_wrong_variables_are_refused_in_a_sentence(shop: Shop, step: str, words: str) -> None:
    assert shop.steps[step].status in {1, 2}
    assert words in shop.steps[step].log


def test_an_account_without_snapshots_is_warned_of(shop: Shop) -> None:
    log = shop.steps["next build"].log
    assert "account_thresholds: no snapshots of the account 'ghost'" in log
    assert "'shop eu'" not in log


def test_no_account_at_all_is_an_alert(shop: Shop) -> None:
    assert shop.steps["no account"].status == 0, shop.steps["no account"].log
    assert shop.steps["no account, alerts"].status == 1
    assert "ALERT (fail) no account has a snapshot" in shop.steps["no account, alerts"].log


def test_rows_of_another_table_are_not_mixed_in(shop: Shop) -> None:
    step = shop.steps["moved"]
    assert step.status == 1
    assert "--full-refresh" in step.log
    assert shop.steps["moved, in full"].status == 0, shop.steps["moved, in full"].log
    assert shop.query(f"select distinct account from {MARTS}.balance_changes") == [("blog",)]


@pytest.mark.parametrize("shop", [max(VERSIONS)], indirect=True)
def test_the_installed_package_posts_its_alerts(shop: Shop, tmp_path: Path) -> None:
    """The models are of the other table by now: blog has had no snapshot for a day."""
    with webhooks() as hooks:
        done = subprocess.run(
            [
                VENVS / VERSIONS[max(VERSIONS)] / "bin" / "python",
                "dbt_packages/tap_balance/notify.py",
                f"--state={tmp_path}/notify.json",
            ],
            cwd=shop.folder,
            env=shop.env
            | {"DBT_PROJECT_DIR": ".", "APPRISE_URLS": f"json://127.0.0.1:{hooks.port}/"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    (received,) = hooks.taken()
    alerts = shop.query(f"select message from {MARTS}.balance_alerts where state <> 'over'")
    assert received.body["message"] == "\n".join(f"new: {message}" for (message,) in alerts)
    assert "account blog is stale: no snapshot since" in received.body["message"]
    assert received.body["type"] == "failure"
