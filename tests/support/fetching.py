"""Requests for balances, without the SDK around them."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import requests
import requests_mock

from tap_balance.client import BalanceClient
from tap_balance.concurrency import Limits, Shutdown, fetch_all
from tap_balance.errors import AccountError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tap_balance.accounts import Account
    from tap_balance.client import Balance
    from tap_balance.concurrency import Outcome


def fetch_from(accounts: Sequence[Account], **limits: float) -> list[tuple[Account, Outcome]]:
    """Request the balances of some accounts, and list the outcomes as they came."""
    options: dict[str, Any] = {
        "request_timeout": 5, "max_attempts": 2, "max_elapsed": 20, "max_concurrency": 8,
    }  # fmt: skip
    given = Limits(**options | limits)
    client = BalanceClient(accounts, given.max_concurrency)
    return list(fetch_all(client, accounts, given, Shutdown(), logging.getLogger("test")))


def fetch(account: Account, **limits: float) -> Balance:
    """Request the balance of one account.

    Raises:
        AccountError: It has none.
    """
    ((_, outcome),) = fetch_from([account], **limits)
    if isinstance(outcome, AccountError):
        raise outcome
    return outcome


@contextmanager
def mocked_api() -> Iterator[requests_mock.Adapter]:
    """Respond to all requests by `requests_mock`, whose Mocker only replaces `Session.send`."""
    api = requests_mock.Adapter()
    with mock.patch.object(requests.Session, "get_adapter", return_value=api):
        yield api
