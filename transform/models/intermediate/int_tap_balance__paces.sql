{#- One row per account: how fast it burns now, and the hours left where that is a surge.

    Two or three intervals count, since one alone may also be an expired gift. Both are compared with as
    many in a row of the days before: where the account usually sends all in single hours, two such
    hours are a surge, and where it does so in two, three are. -#}
{{ config(materialized='table') }}
{%- set settings = settings() %}
{%- set hours = [28, (3 * settings['snapshot_interval_seconds'] / 3600) | round(0, 'ceil') | int] | max %}
{%- set recently = timestamp_literal(as_of_datetime() - modules.datetime.timedelta(hours=hours)) %}

with latest as (
  select *, {{ threshold('critical_days') }} as critical_days
  from {{ ref('int_tap_balance__latest') }}
),

snapshots as (
  select
    account,
    product,
    currency,
    snapshot_at,
    {{ seconds_between('previous_snapshot_at', 'snapshot_at') }} as elapsed_seconds,
    greatest(0, cast(previous_balance10000 as {{ type_amount() }}) - balance10000)
    + greatest(0, cast(previous_gift_balance10000 as {{ type_amount() }}) - gift_balance10000)
      as burn10000
  from {{ ref('int_tap_balance__snapshots') }}
  where
    snapshot_at > {{ recently }}
    and snapshot_at <= {{ as_of() }}
    and previous_snapshot_at is not null
),

recent as (
  select
    snapshots.account,
    snapshots.burn10000,
    snapshots.elapsed_seconds,
    snapshots.snapshot_at > {{ dbt.dateadd('hour', -24, 'latest.snapshot_at') }} as is_last_day,
    {{ divided_down(
      'snapshots.burn10000 * 3600', 'nullif(snapshots.elapsed_seconds, 0)'
    ) }} as per_hour10000,
    row_number() over (partition by snapshots.account order by snapshots.snapshot_at desc) as place
  from snapshots
  inner join latest on {{ same_series('snapshots', 'latest') }}
),

paces as (
  select
    account,
    case when count(*) > 1 then min(case when place <= 2 then per_hour10000 end) end
      as per_hour10000,
    case when count(*) > 2 then min(case when place <= 3 then per_hour10000 end) end
      as three_per_hour10000,
    sum(case when is_last_day then burn10000 else 0 end) as last_day10000,
    sum(case when is_last_day then elapsed_seconds else 0 end) as last_day_seconds
  from recent
  group by account
),

days as (
  select
    days.account,
    days.day,
    days.coverage,
    days.burn10000,
    -- A day whose snapshots are too few, and a row of before, have less.
    coalesce(days.sustained_hourly_burn10000, days.highest_hourly_burn10000, 0)
      as sustained_hourly_burn10000,
    coalesce(
      days.lasting_hourly_burn10000,
      days.sustained_hourly_burn10000,
      days.highest_hourly_burn10000,
      0
    ) as lasting_hourly_burn10000
  from (
    select * from {{ ref('int_tap_balance__days') }}
    where day < {{ as_of_day() }} and day >= {{ as_of_day(-28) }}
  ) as days
  inner join latest on {{ same_series('days', 'latest') }}
),

placed as (
  select
    account,
    sustained_hourly_burn10000,
    lasting_hourly_burn10000,
    case when coverage = 'complete' then burn10000 end as burn10000,
    {%- for kind in ['sustained', 'lasting'] %}
    row_number() over (partition by account order by {{ kind }}_hourly_burn10000 desc) as {{ kind }}_place,
    {%- endfor %}
    row_number() over (
      partition by account
      order by case when coverage = 'complete' then burn10000 else -1 end desc
    ) as daily_place
  from days
),

usual as (
  select
    account,
    coalesce(max(case when sustained_place = 2 then sustained_hourly_burn10000 end), 0)
      as per_hour10000,
    coalesce(max(case when lasting_place = 2 then lasting_hourly_burn10000 end), 0)
      as three_per_hour10000,
    coalesce(max(case when daily_place = 2 then burn10000 end), 0) as per_day10000
  from placed
  group by account
),

totals as (
  select
    paces.account,
    cast(latest.total_balance10000 as {{ type_amount() }}) as total10000,
    latest.critical_days,
    paces.per_hour10000,
    coalesce(paces.three_per_hour10000, 0) as three_per_hour10000,
    paces.last_day10000,
    {{ divided_down('paces.last_day10000 * 86400', 'nullif(paces.last_day_seconds, 0)') }}
      as per_day10000,
    coalesce(usual.per_hour10000, 0) as usual_per_hour10000,
    coalesce(usual.three_per_hour10000, 0) as usual_three_per_hour10000,
    coalesce(usual.per_day10000, 0) as usual_per_day10000
  from paces
  inner join latest on paces.account = latest.account
  left join usual on paces.account = usual.account
  where latest.total_balance10000 > 0 and paces.per_hour10000 > 0
)

select
  account,
  per_hour10000,
  greatest(24 * per_hour10000, per_day10000) as pace_per_day10000,
  case
    when
      (
        per_hour10000 > 2 * usual_per_hour10000
        or three_per_hour10000 > greatest(2 * usual_three_per_hour10000, usual_per_hour10000)
      )
      and total10000 < 24 * critical_days * per_hour10000
      then {{ divided_down('total10000 * 3600', 'per_hour10000') }}
    when
      2 * last_day10000 > 5 * usual_per_day10000
      and total10000 < critical_days * last_day10000
      then {{ divided_down('total10000 * 86400', 'last_day10000') }}
  end as surge_seconds_left,
  -- At the present pace, whether that is a surge or not.
  case
    when total10000 < critical_days * greatest(24 * per_hour10000, per_day10000)
      then {{ divided_down('total10000 * 86400', 'greatest(24 * per_hour10000, per_day10000)') }}
  end as pace_seconds_left
from totals
