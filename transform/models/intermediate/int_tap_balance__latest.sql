{#- One row per account that is not retired: its newest snapshot, and what its history begins with. -#}
{{ config(materialized='table', post_hook='{{ analyze_once() }}') }}
{%- set settings = settings() %}
{%- set retired = settings['retired_accounts'] %}
{%- do warn_of_unknown_accounts(ref('int_tap_balance__days').render()) %}

-- Each account has a row on each day. On Postgres, that is two look-ups in an index for each.
with ends as (
  select
    accounts.account,
    (
      select min(own.day)
      from (select * from {{ ref('int_tap_balance__days') }}) as own
      where own.account = accounts.account
    ) as first_day,
    (
      select max(own.day)
      from (select * from {{ ref('int_tap_balance__days') }}) as own
      where own.account = accounts.account and own.closing_snapshot_at is not null
    ) as last_day
  from (
    select distinct account from {{ ref('int_tap_balance__days') }}
    where day = {{ as_of_day() }}
  ) as accounts
),

days as (
  select * from {{ ref('int_tap_balance__days') }}
),

newest as (
  select
    ends.account,
    ends.first_day,
    max(days.closing_snapshot_at) as snapshot_at
  from ends
  inner join days on ends.account = days.account and ends.last_day = days.day
  group by ends.account, ends.first_day
),

-- The days and snapshots before the first known currency are of that currency, too.
known as (
  select
    account,
    product,
    currency,
    row_number() over (partition by account, product order by day, closing_snapshot_at) as place
  from {{ ref('int_tap_balance__days') }}
  where currency is not null and day >= {{ as_of_day(-settings['memory_days'] - 28) }}
),

snapshots as (
  select * from {{ ref('int_tap_balance__snapshots') }}
)

select
  snapshots.account,
  snapshots.product,
  snapshots.currency,
  known.currency as first_currency,
  newest.first_day,
  snapshots.snapshot_at,
  snapshots.observed_at,
  snapshots.balance10000,
  snapshots.gift_balance10000,
  snapshots.total_balance10000
from newest
inner join snapshots
  on newest.account = snapshots.account and newest.snapshot_at = snapshots.snapshot_at
left join known
  on snapshots.account = known.account and snapshots.product = known.product and known.place = 1
{%- if retired %}
where snapshots.account not in ({{ text_list(retired) }})
{%- endif %}
