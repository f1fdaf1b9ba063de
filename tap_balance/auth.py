"""HTTP Basic for one account."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

from tap_balance.accounts import Account


def basic_auth(account: Account) -> str:
    """Make the `Authorization` of one account: `Basic base64(dev_key:dev_secret)`, in UTF-8.

    The rule is from "EngageLab SMS: Query Balance"; UTF-8 is what RFC 7617 recommends and what
    `requests`' own Basic would not do (it encodes in Latin-1).
    """
    pair = f"{account.dev_key}:{account.dev_secret}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def secrets_of(account: Account) -> tuple[str, ...]:
    """List every form of an account's credentials that must not appear in any output."""
    secret = account.dev_secret
    pair = f"{account.dev_key}:{secret}".encode()
    in_urls_and_pages = quote(secret, safe=""), quote(secret), html.escape(secret)
    in_quotes = json.dumps(secret), repr(secret)
    forms = {secret, *in_urls_and_pages, *(text[1:-1] for text in in_quotes)}
    for plain in (pair, secret.encode()):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The padding may be missing where somebody repeats it.
            forms.add(encode(plain).decode("ascii").rstrip("="))
    return tuple(forms)
