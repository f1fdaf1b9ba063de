{#- One row per account and UTC day, from its first snapshot to `as_of`: also where nothing is known. -#}
{{
  config(
    materialized='incremental',
    incremental_strategy='replace' if target.type == 'postgres' else 'delete+insert',
    unique_key='day',
    indexes=[{'columns': ['day']}, {'columns': ['account', 'day']}],
  )
}}
{%- set since = made_anew_since('closing_snapshot_at') if is_incremental() %}
{%- if since %}
  {#- Whole days are made anew; a snapshot at midnight belongs to the day before. -#}
  {%- set since = (since - modules.datetime.timedelta(seconds=1))
      .replace(hour=0, minute=0, second=0, microsecond=0) %}
{%- endif %}
{%- set begin = 'cast(days.day as ' ~ dbt.type_timestamp() ~ ')' %}
{%- set end = 'cast(' ~ days_after('days.day', 1) ~ ' as ' ~ dbt.type_timestamp() ~ ')' %}

with changes as (
  select *
  from (
    select
      changes.*,
      -- The whole of a change counts on the day that its snapshot closes, also after a gap.
      case
        when previous_snapshot_at is null then cast(snapshot_at as date)
        else {{ day_closed_by('snapshot_at') }}
      end as day
    from {{ ref('balance_changes') }} as changes
    where
      snapshot_at <= {{ as_of() }}
      {%- if since %}
      and snapshot_at >= {{ timestamp_literal(since) }}
      {%- endif %}
  ) as changes
  {%- if since %}
  where day >= {{ date_literal(since) }}
  {%- endif %}
),

per_day as (
  select
    account,
    product,
    currency,
    day,
    count(*) as snapshots,
    sum(case when is_gap then 1 else 0 end) as gaps,
    min(coalesce(previous_snapshot_at, snapshot_at)) as known_from,
    max(snapshot_at) as closing_snapshot_at,
    cast(sum(spend10000) as {{ type_amount() }}) as spend10000,
    cast(sum(top_up10000) as {{ type_amount() }}) as top_up10000,
    cast(sum(gift_granted10000) as {{ type_amount() }}) as gift_granted10000,
    cast(sum(gift_used_or_expired10000) as {{ type_amount() }}) as gift_used_or_expired10000
  from changes
  group by account, product, currency, day
),

first_days as (
  select account, product, currency, day as first_day from per_day
  {%- if since %}
  union all
  -- Each account that was there before has a row on the day before.
  select account, product, currency, {{ date_literal(since) }} as first_day
  from {{ this }}
  where day = {{ date_literal(since - modules.datetime.timedelta(days=1)) }}
  {%- endif %}
),

series as (
  select account, product, currency, min(first_day) as first_day
  from first_days
  group by account, product, currency
),

days as (
  {{ each_day('series', 'first_day', as_of_day()) }}
)

select
  days.account,
  days.product,
  days.currency,
  days.day,
  case
    when per_day.snapshots is null then 'unknown'
    when
      per_day.known_from <= {{ begin }}
      and 2 * {{ seconds_between('per_day.known_from', begin) }} <= 3 * {{ interval_seconds() }}
      and 2 * {{ seconds_between('per_day.closing_snapshot_at', end) }}
      <= 3 * {{ interval_seconds() }}
      -- 24 hours, give or take a tenth: with long intervals the two above say little.
      and {{ seconds_between('per_day.known_from', 'per_day.closing_snapshot_at') }}
      between 77760 and 95040
      and days.day < {{ as_of_day() }}
      then 'complete'
    else 'partial'
  end as coverage,
  coalesce(per_day.snapshots, 0) as snapshots,
  coalesce(per_day.gaps, 0) as gaps,
  cast(closing.balance10000 as {{ type_amount() }})
  + coalesce(per_day.spend10000 - per_day.top_up10000, 0) as opening_balance10000,
  closing.balance10000 as closing_balance10000,
  cast(closing.gift_balance10000 as {{ type_amount() }})
  + coalesce(per_day.gift_used_or_expired10000 - per_day.gift_granted10000, 0)
    as opening_gift_balance10000,
  closing.gift_balance10000 as closing_gift_balance10000,
  closing.total_balance10000 as closing_total_balance10000,
  per_day.spend10000,
  per_day.top_up10000,
  per_day.gift_granted10000,
  per_day.gift_used_or_expired10000,
  per_day.spend10000 + per_day.gift_used_or_expired10000 as burn10000,
  per_day.closing_snapshot_at
from days
left join per_day
  on
    days.account = per_day.account
    and days.product = per_day.product
    and coalesce(days.currency, '') = coalesce(per_day.currency, '')
    and days.day = per_day.day
left join changes as closing
  on
    per_day.account = closing.account
    and per_day.closing_snapshot_at = closing.snapshot_at
