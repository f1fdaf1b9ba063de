{#- The loaded snapshots: UTC without a time zone, whatever the target has stored. -#}
{{ config(materialized='view') }}
{%- do tap_balance.settings() %}
{%- set types = tap_balance.source_types() %}

with source as (
  select * from {{ source('tap_balance', 'balance') }}
)

select
  account,
  product,
  currency,
  {{ tap_balance.utc('snapshot_at', types) }} as snapshot_at,
  {{ tap_balance.utc('observed_at', types) }} as observed_at,
  cast(balance10000 as bigint) as balance10000,
  cast(gift_balance10000 as bigint) as gift_balance10000,
  cast(total_balance10000 as bigint) as total_balance10000
from source
