"""How long each balance lasts: the dbt models after each load, then the alerts.

`build` runs dbt, `alerts` reports the accounts whose state has changed: once when an account comes
into trouble, once when it is over.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, task

from tap_balance_airflow import pipeline, settings

with DAG(
    "tap_balance_runway",
    description="Forecasts and alerts for prepaid balances",
    doc_md=__doc__,
    schedule=[settings.BALANCE],
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=max(settings.MINUTES, 30)),
    default_args=settings.DEFAULT_ARGS | {"on_failure_callback": pipeline.notify_failure},
    tags=["dbt", "meltano", "tap-balance"],
):
    shape = {"DBT_SNAPSHOT_INTERVAL_SECONDS": str(settings.MINUTES * 60)}
    build = pipeline.Meltano(task_id="build", run=f"{settings.DBT}:build", shape=shape)
    build >> task(pipeline.alerts)()
