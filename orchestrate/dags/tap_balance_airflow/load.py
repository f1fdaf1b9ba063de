"""Snapshots of prepaid balances: `meltano run` in shards, then a check of the rows.

`plan` decides once what all tasks of a run work on, `load` runs Meltano for each shard, `check`
fails where a row is missing, and `publish` starts the DAG `tap_balance_runway`.

**Catch-up is off, and a past hour cannot be back-filled**: the API only reports the current
balance. A run that is cleared later stores the balances of *now*, in the interval of now.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import DAG, Param, TriggerRule, get_current_context, task

from tap_balance_airflow import pipeline, settings

with DAG(
    "tap_balance",
    description="Timestamped snapshots of prepaid balances",
    doc_md=__doc__,
    schedule=settings.cron(settings.MINUTES),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # A run that hangs must not hold the next one back: its hour cannot be back-filled.
    dagrun_timeout=timedelta(minutes=max(settings.MINUTES, 30)),
    default_args=settings.DEFAULT_ARGS | {"on_failure_callback": pipeline.notify_failure},
    params={"shards": Param(settings.SHARDS, type="integer", minimum=1, maximum=1024)},
    tags=["meltano", "tap-balance"],
):

    @task
    def plan() -> list[dict[str, Any]]:
        """Decide the interval, the shards and the accounts of this run, for all its tasks."""
        return pipeline.plan(get_current_context(), settings.MINUTES)

    @task
    def check(shapes: list[dict[str, Any]]) -> None:
        """Fail unless every account of the plan has its row; runs when all shards are loaded."""
        pipeline.check(shapes[0])

    # After a failed load, too: the other accounts' balances go on falling, and `stale` shows only
    # when the models are built. `check` decides on the state of the run.
    @task(trigger_rule=TriggerRule.ALL_DONE, outlets=[pipeline.BALANCE])
    def publish() -> None:
        """Update the asset, unless the destination cannot be read."""
        pipeline.publish()

    shapes = plan()
    load = pipeline.Load.partial(task_id="load", map_index_template="{{ shard }}").expand(
        shape=shapes
    )
    load >> [check(shapes), publish()]
