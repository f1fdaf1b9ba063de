"""What to edit in a copy of this folder; docs/airflow.md lists it, and the connections of a run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset

MINUTES = 60
"""From run to run, and of a snapshot interval: a divisor of 60, or hours that divide a day."""

SHARDS = 1
"""Slices that the accounts are loaded in, each by a task; a run by hand can have another number."""

RETRIES = 2
RETRY_SECONDS = 120
"""Before the first retry. The wait doubles from retry to retry, up to a sixth of the interval."""

PROJECT = "/opt/meltano/tap-balance"  # on the workers: the folder of meltano.yml
MELTANO = "/opt/meltano/bin/meltano"
LOADER = "target-postgres"
DBT = "dbt-postgres"
TABLE = "tap_balance.balance"  # where the loader writes to
ALERTS = "tap_balance_marts.balance_alerts"

PERMANENT = (  # what no retry cures; an accounts file that cannot be read may be on another worker
    "HTTP 40[13]|ermission denied|authentication failed|nsufficient privileges"
    "|SettingsError: (?!.*cannot be read)"
)
BALANCE = Asset("tap_balance")


def notifiers() -> list[Any]:
    """List who gets a message when an account's state changes, or when a task failed.

    Any `BaseNotifier`; its templates know `message`, and `subject`, its first line. For example:

        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier
        return [SlackWebhookNotifier(slack_webhook_conn_id="slack", text="{{ message }}")]
    """
    return []


DEFAULT_ARGS: dict[str, Any] = {
    # The workers that have the Meltano project and the accounts: another queue, or on Kubernetes an
    # `executor_config` with a `pod_override`.
    "queue": "default",
    "retries": RETRIES,
    "retry_delay": timedelta(seconds=RETRY_SECONDS),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=max(MINUTES / 6, 5)),
    "execution_timeout": timedelta(minutes=max(MINUTES / 4, 5)),
}


def cron(minutes: int) -> str:
    """Write the schedule whose runs begin when the snapshot intervals do (UTC)."""
    if minutes < 1 or (60 % minutes and (minutes % 60 or 24 * 60 % minutes)):
        msg = "MINUTES: must divide 60, or be whole hours that divide a day, such as 15, 60 or 1440"
        raise ValueError(msg)
    hours = minutes // 60
    return f"0 {f'*/{hours}' if hours < 24 else 0} * * *" if hours else f"*/{minutes} * * * *"  # noqa: PLR2004
