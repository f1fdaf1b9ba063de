"""What to edit in a copy of this folder: everything that Airflow needs when it parses the DAGs.

What a run needs beside is in the Variable and the two connections that docs/airflow.md lists.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

MINUTES = 60
"""From run to run, and of a snapshot interval: a divisor of 60, or hours that divide a day."""

SHARDS = 1
"""Slices that the accounts are loaded in, each by a task; a run by hand can have another number."""

RETRIES = 2
RETRY_SECONDS = 120
"""Before the first retry. The wait doubles from retry to retry, up to a sixth of the interval."""


def notifiers() -> list[BaseNotifier]:
    """List who gets a message when an account's state changes, or when a task failed.

    The templates know `message`, and `subject`, its first line. For example:

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
