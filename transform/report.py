"""Write one self-contained HTML page from the models: what is left, how long, and the history.

dbt itself reads the models, so that the page is of whatever database the profile points to. Vega
draws the charts into the page as SVG: nothing is fetched and no script runs when it is opened.
"""

from __future__ import annotations

import argparse
import html
from collections import Counter
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt
import vl_convert
from dbt_show import show

if TYPE_CHECKING:
    from dbt_show import Row

STATUSES = {
    "empty": ("■", "nothing is left"),
    "critical": ("▲", "top up now"),
    "low": ("◆", "top up soon"),
    "stale": ("?", "no recent snapshot: the balance is unknown"),
    "accumulating": ("…", "too little history to say"),
    "ok": ("✓", "no need to act"),
}
"""The most urgent first; each with a sign, so that no colour is needed to tell them apart."""

# Whatever could lose digits on its way through JSON is sent as text.
RUNWAY = """
select account, product, coalesce(currency, '') as currency, status, complete_days,
  cast(snapshot_at as varchar(30)) as snapshot_at, age_seconds,
  cast(total_balance10000 as varchar(40)) as total, cast(balance10000 as varchar(40)) as paid,
  cast(gift_balance10000 as varchar(40)) as gift,
  cast(burn_per_day10000 as varchar(40)) as burn,
  cast(days_left as varchar(20)) as days, cast(days_left_low as varchar(20)) as days_low,
  cast(days_left_high as varchar(20)) as days_high,
  cast(runs_out_on as varchar(20)) as runs_out_on
from {{ ref('balance_runway') }}
"""
DAILY = """
select daily.account, cast(daily.day as varchar(20)) as day, daily.coverage,
  cast(daily.closing_total_balance10000 as varchar(40)) as total,
  cast(daily.top_up10000 as varchar(40)) as top_up
from {{ ref('balance_daily') }} as daily
inner join {{ ref('balance_runway') }} as runway
  on daily.account = runway.account and daily.product = runway.product
  and coalesce(daily.currency, runway.currency, '') = coalesce(runway.currency, '')
where daily.day > {{ as_of_day(-90) }} and daily.day <= {{ as_of_day() }}
order by daily.account, daily.day
"""

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ccc, #555); --paper: light-dark(#fff, #1b1b1d);
  --ink: light-dark(#1b1b1d, #eee); --quiet: light-dark(#555, #b5b5b5); --act: light-dark(#a40000, #ff8f80);
  --soon: light-dark(#7a4d00, #f5c04a); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .15rem 0; }
.quiet { color: var(--quiet); font-size: .875rem; }
.counts { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; margin: .5rem 0 1rem; padding: 0; }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; min-width: 0; }
.empty, .critical { border-width: 3px; border-color: var(--act); }
.low, .stale { border-width: 2px; border-color: var(--soon); border-style: dashed; }
.status { font-weight: 700; }
.empty .status, .critical .status { color: var(--act); }
.low .status, .stale .status { color: var(--soon); }
.left { font-size: 1.3rem; font-variant-numeric: tabular-nums; }
svg { display: block; height: auto; margin-top: .5rem; width: 100%; }
"""  # noqa: E501


def main() -> None:
    """Read the models, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dbt", default="dbt", help="the dbt command")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.add_argument("--charts", type=int, default=100, help="maximum number of charts")
    parser.add_argument("--vars", default="{}", help="dbt variables, as for the models")
    options = parser.parse_args()
    urgency = list(STATUSES)
    accounts = sorted(
        show(options.dbt, RUNWAY, options.vars),
        key=lambda row: (
            urgency.index(row["status"]),
            Decimal(row["days"] or "Infinity"),
            row["account"],
        ),
    )
    days = {
        account: list(rows)
        for account, rows in groupby(
            show(options.dbt, DAILY, options.vars), lambda row: row["account"]
        )
    }
    charts = {
        row["account"]: chart(row, days.get(row["account"], []))
        for row in accounts[: options.charts]
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(accounts, charts), encoding="utf-8")


def amount(text: str, currency: str) -> str:
    """An amount times 10000, for people."""
    return f"{Decimal(text) / 10000:,.4f} {currency}".strip()


def chart(account: Row, days: list[Row]) -> str:
    """The account's closing balances as SVG, in the page's own colour.

    Days without a snapshot break the line, a day between two of them is a dot, triangles mark
    top-ups, and where an end is in sight a dashed line leads to it.
    """
    closing = [
        {"day": row["day"], "left": float(Decimal(row["total"]) / 10000) if row["total"] else None}
        for row in days
    ]
    around = [None, *(point["left"] for point in closing), None]
    alone = [
        point
        for before, point, after in zip(around, closing, around[2:], strict=False)
        if before is None and point["left"] is not None and after is None
    ]
    top_ups = [
        point
        for point, row in zip(closing, days, strict=True)
        if row["top_up"] and Decimal(row["top_up"]) > 0
    ]
    x = alt.X(
        "day:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(tickCount=4, format="%d %b")
    )
    y = alt.Y("left:Q", title=None, axis=alt.Axis(tickCount=4, format="~s"))
    ink = "currentColor"
    layers: list[alt.Chart] = [
        alt.Chart(alt.Data(values=closing))
        .mark_line(stroke=ink, strokeWidth=2, invalid="break-paths-show-domains")
        .encode(x=x, y=y),
        alt.Chart(alt.Data(values=alone))
        .mark_point(shape="circle", filled=True, fill=ink, stroke=ink, size=20)
        .encode(x=x, y=y),
        alt.Chart(alt.Data(values=top_ups))
        .mark_point(shape="triangle-up", filled=True, fill=ink, stroke=ink, size=90)
        .encode(x=x, y=y),
        alt.Chart(alt.Data(values=[{"left": 0}])).mark_rule(stroke=ink).encode(y=y),
    ]  # fmt: skip
    in_sight = account["runs_out_on"] and account["status"] != "stale"
    if in_sight and 0 < Decimal(account["days"]) <= len(days):
        now = {"day": account["snapshot_at"][:10], "left": float(Decimal(account["total"]) / 10000)}
        end = {"day": account["runs_out_on"], "left": 0}
        layers.append(
            alt.Chart(alt.Data(values=[now, end]))
            .mark_line(stroke=ink, strokeWidth=2, strokeDash=[4, 4])
            .encode(x=x, y=y)
        )
    spec = (
        alt.layer(*layers)
        .properties(width=300, height=130, background="transparent", padding=2)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=ink, tickColor=ink, domainColor=ink, gridColor=ink, gridOpacity=0.15,
            labelFont="system-ui, sans-serif", labelFontSize=12,
        )
        .to_dict()
    )  # fmt: skip
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version="v6_1")
    words = f"Balance of {account['account']} by day; {len(top_ups)} days with a top-up"
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)


def lasts(row: Row) -> str:
    """How long an account's balance lasts, in words."""
    if row["status"] == "stale":
        return "unknown how long it lasts"
    if row["status"] == "empty":
        return "no days left"
    if row["status"] == "accumulating":
        return f"{row['complete_days']} complete days so far"
    if row["days"] is None:
        return "no end in sight"
    return f"{row['days']} days ({row['days_low']} to {row['days_high'] or 'many'})"


def page(accounts: list[Row], charts: dict[str, str]) -> str:
    """The whole page."""
    counts = Counter(row["status"] for row in accounts)
    items = "".join(
        f"<li>{sign} {counts[status]} {status}</li>"
        for status, (sign, _) in STATUSES.items()
        if counts[status]
    )
    newest = max((row["snapshot_at"][:16] for row in accounts), default="(there is none)")
    drawn = ""
    if len(charts) < len(accounts):
        drawn = f" Only the first {len(charts)} of {len(accounts)} accounts have a chart."
    cards = "\n".join(card(row, charts.get(row["account"], "")) for row in accounts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Prepaid balances</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Prepaid balances</h1>
<p class="quiet">Newest snapshot: {newest} UTC. The line is the balance at each day's close and
breaks where it is unknown; ▲ marks days with a top-up; the dashes lead to the day it runs
out.{drawn}</p>
<ul class="counts">{items}</ul>
<main>
{cards}
</main>
</body>
</html>
"""


def card(row: Row, svg: str) -> str:
    """One account."""
    sign, meaning = STATUSES[row["status"]]
    currency = row["currency"]
    facts = [f"paid {amount(row['paid'], '')}, gift {amount(row['gift'], '')}"]
    if row["burn"]:
        facts.append(f"{amount(row['burn'], currency)} a day")
    if row["runs_out_on"] and row["status"] in {"critical", "low", "ok"}:
        facts.append(f"until {row['runs_out_on']}")
    hours = Decimal(row["age_seconds"]) / 3600
    return f"""<article class="{row["status"]}">
<h2>{html.escape(row["account"])} <span class="quiet">{html.escape(row["product"])}</span></h2>
<p class="status">{sign} {row["status"]}: {meaning}</p>
<p class="left">{html.escape(amount(row["total"], currency))}</p>
<p>{html.escape(lasts(row))}</p>
<p class="quiet">{html.escape("; ".join(facts))}; snapshot of {row["snapshot_at"][:16]} UTC,
{hours:.1f} hours old</p>
{svg}
</article>"""


if __name__ == "__main__":
    main()
