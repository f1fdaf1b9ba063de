"""Snapshots of prepaid balances: `meltano run` in shards, then a check of the rows.

`plan` decides once what all tasks of a run work on, `load` runs Meltano for each shard, `check`
fails where a row is missing, and `publish` starts the DAG `tap_balance_runway`.

**Catch-up is off, and a past hour cannot be back-filled**: the API only reports the current
balance. A run that is cleared later stores the balances of *now*, in the interval of now.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

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
    shapes = task(pipeline.plan)()
    suffix = r"shard-${TAP_BALANCE_SHARD/\//-of-}"  # bash makes "shard-1-of-2" of "1/2"
    load = pipeline.Meltano.partial(
        task_id="load",
        run=f"--state-id-suffix={suffix} tap-balance {settings.LOADER}",
        map_index_template="{{ task.shape.TAP_BALANCE_SHARD }}",
    ).expand(shape=shapes)

    # After a failed load, too: the other accounts' balances go on falling, and `stale` shows only
    # when the models are built. `check` decides on the state of the run.
    @task(trigger_rule=TriggerRule.ALL_DONE, outlets=[settings.BALANCE])
    def publish() -> None:
        """Update the asset, unless the destination cannot be read: dbt would fail for that, too."""
        try:
            pipeline.query(f"SELECT 1 FROM {settings.TABLE} WHERE 1 = 0")  # noqa: S608
        except AirflowException as error:
            raise AirflowSkipException(str(error)) from None

    load >> [task(pipeline.check)(shapes), publish()]
