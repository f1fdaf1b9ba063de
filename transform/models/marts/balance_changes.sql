{#- One row per snapshot: what changed since the account's last one in the same currency. -#}
{{ config(materialized='view') }}

with snapshots as (
  select
    *,
    {{ seconds_between('previous_snapshot_at', 'snapshot_at') }} as elapsed_seconds,
    {{ differences() }}
  from {{ ref('int_tap_balance__snapshots') }}
),

changes as (
  select
    account,
    product,
    currency,
    previous_snapshot_at,
    snapshot_at,
    observed_at,
    elapsed_seconds,
    {{ is_gap("previous_snapshot_at", "snapshot_at") }} as is_gap,
    previous_balance10000,
    balance10000,
    previous_gift_balance10000,
    gift_balance10000,
    total_balance10000,
    {{ movements() }}
  from snapshots
)

select
  account,
  product,
  currency,
  previous_snapshot_at,
  snapshot_at,
  observed_at,
  cast(elapsed_seconds as bigint) as elapsed_seconds,
  is_gap,
  {%- for amount in [
    'previous_balance', 'balance', 'previous_gift_balance', 'gift_balance', 'total_balance',
    'spend', 'top_up', 'gift_granted', 'gift_used_or_expired'
  ] %}
  cast({{ amount }}10000 as {{ type_amount() }}) as {{ amount }}10000,
  {{ decimal_of(amount ~ '10000') }} as {{ amount }}{{ ',' if not loop.last }}
  {%- endfor %}
from changes
