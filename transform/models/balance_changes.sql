{#- One row per snapshot: what changed since the account's last one in the same product and currency. -#}
{{
  config(
    materialized='incremental',
    incremental_strategy='replace' if target.type == 'postgres' else 'delete+insert',
    unique_key='snapshot_at',
    pre_hook=[{'sql': '{{ index_source() }}', 'transaction': false}]
      if target.type == 'postgres' else [],
    indexes=[{'columns': ['snapshot_at']}, {'columns': ['account', 'snapshot_at']}],
  )
}}
{%- set since = made_anew_since('snapshot_at') if is_incremental() %}

{%- set columns %}
    account, product, currency, snapshot_at, observed_at, balance10000, gift_balance10000,
    total_balance10000
{%- endset %}
{#- Amounts of another product or in another currency are not compared. #}
{%- set series = "account, product, coalesce(currency, '')" %}
{%- set following = 'partition by ' ~ series ~ ' order by snapshot_at' %}

with loaded as (
  select
    {{ columns }},
    lead(snapshot_at) over (partition by account order by snapshot_at, observed_at) as next_at
  from {{ source('tap_balance', 'balance') }}
  where
    snapshot_at <= {{ as_of() }}
    {%- if since %}
    and snapshot_at >= {{ timestamp_literal(since) }}
    {%- endif %}
),

-- A target that appends keeps every try of an interval; the one observed last counts.
snapshots as (
  select {{ columns }}, true as is_new
  from loaded
  where next_at is null or next_at > snapshot_at
),

{%- if since %}

-- What each of these series had before: the first of the new rows is compared with it.
boundary as (
  {{ last_change_before(timestamp_literal(since), columns, series) }}
),

all_snapshots as (
  select {{ columns }}, is_new from snapshots
  union all
  select {{ columns }}, false from boundary
),
{%- else %}

all_snapshots as (
  select {{ columns }}, is_new from snapshots
),
{%- endif %}

followed as (
  select
    all_snapshots.*,
    lag(snapshot_at) over ({{ following }}) as previous_snapshot_at,
    lag(balance10000) over ({{ following }}) as previous_balance10000,
    lag(gift_balance10000) over ({{ following }}) as previous_gift_balance10000
  from all_snapshots
),

differences as (
  select
    followed.*,
    {{ seconds_between('previous_snapshot_at', 'snapshot_at') }} as elapsed_seconds,
    cast(balance10000 as {{ type_amount() }}) - previous_balance10000 as paid10000,
    cast(gift_balance10000 as {{ type_amount() }}) - previous_gift_balance10000 as gift10000
  from followed
  where is_new
)

select
  account,
  product,
  currency,
  previous_snapshot_at,
  snapshot_at,
  observed_at,
  elapsed_seconds,
  2 * elapsed_seconds > 3 * {{ interval_seconds() }} as is_gap,
  previous_balance10000,
  balance10000,
  previous_gift_balance10000,
  gift_balance10000,
  total_balance10000,
  case when paid10000 < 0 then -paid10000 when paid10000 >= 0 then 0 end as spend10000,
  case when paid10000 > 0 then paid10000 when paid10000 <= 0 then 0 end as top_up10000,
  case when gift10000 > 0 then gift10000 when gift10000 <= 0 then 0 end as gift_granted10000,
  case when gift10000 < 0 then -gift10000 when gift10000 >= 0 then 0 end
    as gift_used_or_expired10000
from differences
