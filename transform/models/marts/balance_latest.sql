{#- One row per account that is not retired: its newest snapshot. -#}
{{ config(materialized='table') }}

with latest as (
  select * from {{ ref('int_tap_balance__latest') }}
)

select
  account,
  product,
  currency,
  snapshot_at,
  observed_at,
  case
    when observed_at > {{ as_of() }} then 0
    else {{ seconds_between('observed_at', as_of()) }}
  end as age_seconds,
  {%- for amount in ['balance', 'gift_balance', 'total_balance'] %}
  cast({{ amount }}10000 as {{ type_amount() }}) as {{ amount }}10000,
  {{ decimal_of(amount ~ '10000') }} as {{ amount }}{{ ',' if not loop.last }}
  {%- endfor %}
from latest
