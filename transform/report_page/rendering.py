"""The page as HTML: templates and libraries put together, and what the scripts need."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup
from report_page import words
from report_page.figures import (
    NOW,
    TIMELINE_DAYS,
    Months,
    first_to_run_out,
    timeline,
    totals,
)
from report_page.reading import HISTORY_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from report_page.reading import Account, Models

HERE = Path(__file__).resolve().parent
STATUSES = {
    "empty": ("■", "nothing is left"),
    "critical": ("▲", "top up now"),
    "low": ("◆", "top up soon"),
    "stale": ("?", "no recent snapshot: the balance is not known"),
    "accumulating": ("○", "too little history to judge"),
    "ok": ("✓", "no need to act"),
}
"""Each with a sign, so that no colour is needed to tell them apart."""

SPARKLINE_STEP = 3
SCRIPTS = ("vendor/dataTables.min.js", "vendor/uPlot.iife.min.js", "page.js")
STYLES = ("vendor/uPlot.min.css", "page.css")
LICENSES = ("dataTables", "uPlot")


def render(models: Models, now: datetime) -> str:
    """Return the page.

    Args:
        models: What has been read.
        now: The time at which the page is made, UTC.
    """
    accounts = models.accounts
    judged_at = max((account.judged_at for account in accounts), default=now)
    months = Months.before(judged_at.date())
    to_top_up = [account for account in accounts if account.top_up]
    scripts = [_asset(name) for name in SCRIPTS]
    styles = [_asset(name) for name in STYLES]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(iso=words.iso, clock=words.clock, span=words.span)
    return environment.get_template("page.html").render(
        accounts=accounts,
        counts=Counter(account.status for account in accounts),
        surging=[account for account in accounts if account.is_surging],
        statuses=STATUSES,
        now=now,
        judged_at=judged_at,
        newest=max((account.snapshot_at for account in accounts), default=None),
        is_old=now - judged_at > models.stale_after,
        months=months,
        day_range=words.day_range,
        totals=totals(accounts, models.spend, months),
        ahead=timeline(accounts, judged_at),
        first=first_to_run_out(accounts),
        soon=judged_at + timedelta(days=TIMELINE_DAYS),
        ending=lambda account: words.ending(
            account.end, now, to_the_minute=is_to_the_minute(account)
        ),
        is_to_the_minute=is_to_the_minute,
        to_top_up=to_top_up,
        top_up_now=[account for account in to_top_up if account.status in NOW],
        top_up_csv=base64.b64encode(_csv(to_top_up).encode("utf-8-sig")).decode(),
        history_days=HISTORY_DAYS,
        sparkline=sparkline,
        trend=trend,
        data=_data(models, now, judged_at),
        scripts=scripts,
        styles=styles,
        licenses=[_asset(f"vendor/{name}.LICENSE.txt") for name in LICENSES],
        policy=_policy(scripts, styles),
    )


def is_to_the_minute(account: Account) -> bool:
    """Whether its end is known to the minute, not to the day."""
    return account.end is not None and account.end - account.snapshot_at < timedelta(days=2)


def sparkline(account: Account) -> str:
    """The balances as the path of an SVG, a unit for each day, and 24 high.

    Every third day is enough. A path of relative steps takes the fewest bytes.
    """
    left = [day.left if day else None for day in account.days[SPARKLINE_STEP - 1 :: SPARKLINE_STEP]]
    known = [amount for amount in left if amount is not None]
    if not known:
        return ""
    highest, lowest = max(*known, 0), min(*known, 0)
    scale = 24 / (highest - lowest or 1)
    path = ""
    before = None
    for place, amount in enumerate(left):
        y = None if amount is None else round((highest - amount) * scale)
        if y is not None and before is None:
            path += f"M{SPARKLINE_STEP * place} {y}h0l0 0"
        elif y is not None and before is not None:
            path += f" {SPARKLINE_STEP} {y - before}"
        before = y
    return path


def trend(account: Account) -> str:
    """The same in words."""
    known = [day.left for day in account.days if day and day.left is not None]
    if not known:
        return "no history"
    first, last = (account.currency.money(Decimal(known[end]).scaleb(-4)) for end in (0, -1))
    return f"from {first} to {last}"


def _asset(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8").strip())  # noqa: S704 - our own files


def _policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The Content-Security-Policy: what is embedded here may run, and nothing may be fetched."""

    def hashes(texts: Iterable[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in texts
        )

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes(styles)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _csv(accounts: Iterable[Account]) -> str:
    """The list of what to top up, with exact amounts; a spreadsheet must not run a name."""
    file = io.StringIO()
    rows = csv.writer(file)
    columns = "account product currency status total_balance burn_per_day runs_out_on top_up"
    rows.writerow(columns.split())
    for account in accounts:
        name, product = (
            f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
            for text in (account.name, account.product)
        )
        end = account.end and account.end.date()
        amounts = (account.total, account.per_day, end, account.top_up)
        rows.writerow([name, product, account.currency.code, account.status, *amounts])
    return file.getvalue()


def _data(models: Models, now: datetime, judged_at: datetime) -> str:
    """What the scripts need, as JSON, compressed: histories are most of it."""
    data = {
        "made": words.iso(now),
        "judged": words.iso(judged_at),
        "staleAfter": models.stale_after.total_seconds(),
        "firstDay": f"{models.first_day:%Y-%m-%d}",
        "accounts": [_history(account) for account in models.accounts],
    }
    text = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _history(account: Account) -> dict[str, Any]:
    """One account's days; amounts times 10000, null where they are not known.

    `rise` is what the balance rose beside what was burned, so that it is zero on most days, and
    compresses to next to nothing.
    """
    rise: list[int | None] = []
    before = 0
    for day in account.days:
        if day is None or day.left is None:
            rise.append(None)
        else:
            rise.append(day.left - before + (day.spend or 0) + (day.gift_used or 0))
            before = day.left
    return {
        "currency": account.currency.code,
        "digits": account.currency.digits,
        "total": str(account.total),
        "daysLeft": [None if days is None else float(days) for days in account.days_left],
        "rise": rise,
        "spend": [day and day.spend for day in account.days],
        "gift": [day and day.gift_used for day in account.days],
        "topUp": [day and day.top_up for day in account.days],
    }
