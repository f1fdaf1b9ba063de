"""HTTP Basic for one account."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

from singer_sdk.authenticators import BasicAuthenticator

if TYPE_CHECKING:
    from tap_balance.accounts import Account


def authenticator_for(account: Account) -> BasicAuthenticator:
    """Make the authenticator of one account: `base64(dev_key:dev_secret)`, in UTF-8.

    The rule is from "EngageLab SMS: Query Balance"; UTF-8 is what RFC 7617 recommends and what
    `requests`' own Basic would not do (it encodes in Latin-1).
    """
    return BasicAuthenticator(username=account.dev_key, password=account.dev_secret)


def secrets_of(account: Account) -> tuple[str, ...]:
    """List every form of an account's credentials that must not appear in any output."""
    pair = f"{account.dev_key}:{account.dev_secret}".encode()
    return (
        account.dev_secret,
        quote(account.dev_secret, safe=""),
        base64.b64encode(pair).decode("ascii"),
        base64.urlsafe_b64encode(pair).decode("ascii"),
    )
