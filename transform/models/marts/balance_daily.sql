{#- One row per account and UTC day, from its first snapshot to `as_of`, including unknown days. -#}
{{ config(materialized='view') }}

with days as (
  select * from {{ ref('int_tap_balance__days') }}
)

select
  account,
  product,
  currency,
  day,
  coverage,
  snapshots,
  gaps,
  {%- for amount in [
    'opening_balance', 'closing_balance', 'opening_gift_balance', 'closing_gift_balance',
    'closing_total_balance', 'spend', 'top_up', 'gift_granted', 'gift_used_or_expired', 'burn',
    'highest_hourly_burn'
  ] %}
  cast({{ amount }}10000 as {{ type_amount() }}) as {{ amount }}10000,
  {{ decimal_of(amount ~ '10000') }} as {{ amount }},
  {%- endfor %}
  closing_snapshot_at
from days
