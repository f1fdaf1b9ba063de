"""What the page is made of, read from the models in two queries: accounts, and spend by day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from dbt_show import show
from report_page.words import Currency

if TYPE_CHECKING:
    from dbt_show import Row

HISTORY_DAYS = 120
URGENCY = ("empty", "critical", "low", "stale", "accumulating", "ok")

# Whatever could lose digits on its way through JSON is sent as text. The days of an account are one
# text, because a row of JSON for each would be most of the time that the page takes.
ACCOUNTS = """
with runway as (
  select *, {{ tap_balance.money('1') }} as one from {{ ref('balance_runway') }}
),
days as (
  select
    daily.account,
    {{ dbt.listagg(
      "cast("
      ~ tap_balance.days_between(tap_balance.as_of_day(1 - DAYS), 'daily.day') ~ " as varchar(10))"
      ~ " || ':' || coalesce(cast(daily.closing_total_balance10000 as varchar(40)), '')"
      ~ " || ':' || coalesce(cast(daily.spend10000 as varchar(40)), '')"
      ~ " || ':' || coalesce(cast(daily.gift_used_or_expired10000 as varchar(40)), '')"
      ~ " || ':' || coalesce(cast(daily.top_up10000 as varchar(40)), '')",
      "' '", "order by daily.day"
    ) }} as days
  from {{ ref('balance_daily') }} as daily
  inner join runway
    on daily.account = runway.account and daily.product = runway.product
    and coalesce(daily.currency, runway.currency, '') = coalesce(runway.currency, '')
  where
    daily.day >= {{ tap_balance.as_of_day(1 - DAYS) }}
    and daily.day <= {{ tap_balance.as_of_day() }}
  group by daily.account
)
select
  runway.account, runway.product, coalesce(runway.currency, '') as currency, runway.one,
  runway.status, runway.age_seconds,
  cast(runway.snapshot_at as varchar(30)) as snapshot_at,
  cast(latest.observed_at as varchar(30)) as observed_at,
  cast(runway.total_balance as varchar(50)) as total, cast(runway.balance as varchar(50)) as paid,
  cast(runway.gift_balance as varchar(50)) as gift,
  cast(runway.burn_per_day as varchar(50)) as per_day,
  cast(runway.days_left as varchar(20)) as days_left,
  cast(runway.days_left_low as varchar(20)) as days_low,
  cast(runway.days_left_high as varchar(20)) as days_high,
  cast(runway.runs_out_at as varchar(30)) as runs_out_at,
  cast(runway.runs_out_on as varchar(20)) as runs_out_on,
  cast(runway.surge_hours_left as varchar(20)) as surge_hours,
  cast(runway.top_up as varchar(50)) as top_up,
  days.days,
  cast({{ tap_balance.as_of_day(1 - DAYS) }} as varchar(20)) as first_day,
  {{ tap_balance.settings()['stale_after_seconds'] }} as stale_after
from runway
inner join {{ ref('balance_latest') }} as latest on runway.account = latest.account
left join days on runway.account = days.account
""".replace("DAYS", str(HISTORY_DAYS))

SPEND = """
select
  coalesce(daily.currency, runway.currency, '') as currency, cast(daily.day as varchar(20)) as day,
  cast(sum(daily.spend) as varchar(50)) as spend
from {{ ref('balance_daily') }} as daily
left join {{ ref('balance_runway') }} as runway
  on daily.account = runway.account and daily.product = runway.product
where daily.day >= {{ tap_balance.as_of_day(-100) }}
group by coalesce(daily.currency, runway.currency, ''), daily.day
"""

Spend = dict[str, dict[date, Decimal]]
"""By the currency's code and the UTC day: what all accounts spent of their paid balances."""


@dataclass(frozen=True)
class Day:
    """One UTC day of an account; amounts times 10000, null where they are not known."""

    left: int | None
    """The total balance at the day's close."""

    spend: int | None
    gift_used: int | None
    top_up: int | None


@dataclass(frozen=True)
class Account:
    """One account, as the models describe it; times are UTC, without a zone."""

    name: str
    product: str
    currency: Currency
    status: str
    snapshot_at: datetime
    judged_at: datetime
    """The time that the models speak of, to the second."""

    total: Decimal
    paid: Decimal
    gift: Decimal
    per_day: Decimal | None
    days_left: tuple[Decimal | None, Decimal | None, Decimal | None]
    """The days from the snapshot on, and their range's low and high end."""

    runs_out_at: datetime | None
    runs_out_on: date | None
    surge_hours: Decimal | None
    top_up: Decimal | None
    days: list[Day | None]
    """The last HISTORY_DAYS, the oldest first; null before the first snapshot."""

    @property
    def is_surging(self) -> bool:
        """Whether it burns far more than usual."""
        return self.surge_hours is not None and self.status not in {"stale", "empty"}

    @property
    def end(self) -> datetime | None:
        """When nothing is left; at the present pace where that is far more than usual."""
        if self.status in {"stale", "empty"}:
            return None
        end = None
        if self.surge_hours is not None:
            end = self.snapshot_at + timedelta(hours=float(self.surge_hours))
        if self.runs_out_on and self.status != "accumulating":
            end = min(end or datetime.max, self._expected_end)  # noqa: DTZ901 - no zone anywhere
        return end

    @property
    def _expected_end(self) -> datetime:
        """As the estimate has it: to the minute under two days, otherwise to the day."""
        if self.runs_out_at:
            return self.runs_out_at
        days = self.days_left[0] or Decimal(0)
        assert self.runs_out_on  # noqa: S101 - the two are known together
        return max(
            self.snapshot_at + timedelta(days=float(days)),
            datetime.combine(self.runs_out_on, datetime.min.time()),
        )


@dataclass(frozen=True)
class Models:
    """What has been read."""

    accounts: list[Account]
    """The most urgent first."""

    spend: Spend
    stale_after: timedelta
    """Age from which the models are too old, as for a snapshot."""

    first_day: date
    """Of the accounts' histories."""


def read_models(dbt: str, variables: str) -> Models:
    """Read them from wherever dbt's profile points to.

    Raises:
        SystemExit: dbt failed.
    """
    rows = show(dbt, ACCOUNTS, variables)
    spend: Spend = {}
    for row in show(dbt, SPEND, variables):
        of_currency = spend.setdefault(row["currency"], {})
        of_currency[date.fromisoformat(row["day"])] = Decimal(row["spend"] or 0)
    return Models(
        sorted(map(_account, rows), key=_urgency),
        spend,
        timedelta(seconds=max((int(row["stale_after"]) for row in rows), default=0)),
        date.fromisoformat(rows[0]["first_day"]) if rows else date.min,
    )


def _urgency(account: Account) -> tuple[int, datetime, str]:
    end = account.end or datetime.max  # noqa: DTZ901
    return URGENCY.index(account.status), end, account.name


def _account(row: Row) -> Account:
    observed_at = _time(row["observed_at"])
    digits = row["one"].split()[0].partition(".")[2]
    return Account(
        name=row["account"],
        product=row["product"],
        currency=Currency(row["currency"], len(digits)),
        status=row["status"],
        snapshot_at=_time(row["snapshot_at"]),
        judged_at=observed_at + timedelta(seconds=int(row["age_seconds"])),
        total=Decimal(row["total"]),
        paid=Decimal(row["paid"]),
        gift=Decimal(row["gift"]),
        per_day=_decimal(row["per_day"]),
        days_left=(
            _decimal(row["days_left"]),
            _decimal(row["days_low"]),
            _decimal(row["days_high"]),
        ),
        runs_out_at=_time(row["runs_out_at"]) if row["runs_out_at"] else None,
        runs_out_on=date.fromisoformat(row["runs_out_on"]) if row["runs_out_on"] else None,
        surge_hours=_decimal(row["surge_hours"]),
        top_up=_decimal(row["top_up"]),
        days=_days(row["days"] or ""),
    )


def _days(text: str) -> list[Day | None]:
    """The days of `12:1000:50::0 13:...`: how many days after the first, and the amounts."""
    days: list[Day | None] = [None] * HISTORY_DAYS
    for entry in text.split():
        place, *amounts = entry.split(":")
        left, spend, gift_used, top_up = (int(amount) if amount else None for amount in amounts)
        days[int(place)] = Day(left, spend, gift_used, top_up)
    return days


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("T", " ")[:19])
