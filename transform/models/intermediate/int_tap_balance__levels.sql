{#- One row per account: whether it is empty, critical or low, and since when.

    Of the decisions of the last memory_days the newest holds; where there is none, the worse. -#}
{{ config(materialized='table') }}
{%- set settings = settings() %}
{%- set levels = ['empty', 'critical', 'low'] %}

with latest as (
  select
    account,
    product,
    currency,
    first_currency
  from {{ ref('int_tap_balance__latest') }}
),

today as (
  select * from {{ ref('int_tap_balance__rates') }}
  where day = {{ as_of_day() }} and complete_days >= 3
),

rates as (
  select
    today.account,
    today.complete_days
  from today
  inner join latest on {{ same_series('today', 'latest') }}
),

decisions as (
  select * from {{ ref('int_tap_balance__decisions') }}
  where
    day >= {{ as_of_day(-settings['memory_days']) }}
    -- What was left at midnight counts today only, where today has no snapshot.
    and (day = {{ as_of_day() }} or not is_carried)
),

days as (
  select decisions.*
  from decisions
  inner join latest on {{ same_series('decisions', 'latest') }}
),

lasts as (
  select
    account,
    max(last_at) as last_at
    {%- for level in levels %},
    max(last_{{ level }}_at) as last_{{ level }}_at,
    max(last_not_{{ level }}_at) as last_not_{{ level }}_at
    {%- endfor %}
  from days
  group by account
),

begins as (
  select
    days.account
    {%- for level in levels %},
    min(
      case
        when lasts.last_not_{{ level }}_at is null or days.{{ level }}_since > lasts.last_not_{{ level }}_at
          then days.{{ level }}_since
      end
    ) as {{ level }}_since
    {%- endfor %}
  from days
  inner join lasts on days.account = lasts.account
  group by days.account
),

on_levels as (
  select
    lasts.account
    {%- for level in levels %},
    case
      -- Without a rate, only what the newest snapshot says counts.
      when rates.complete_days is null or '{{ level }}' = 'empty'
        then coalesce(lasts.last_{{ level }}_at = lasts.last_at, false)
      when '{{ level }}' = 'low' and rates.complete_days < {{ settings['min_history_days'] }} then false
      else lasts.last_not_{{ level }}_at is null
        or coalesce(lasts.last_{{ level }}_at > lasts.last_not_{{ level }}_at, false)
    end as is_{{ level }}
    {%- endfor %}
  from lasts
  left join rates on lasts.account = rates.account
)

select
  on_levels.account
  {%- for level in levels %},
  on_levels.is_{{ level }},
  case when on_levels.is_{{ level }} then begins.{{ level }}_since end as {{ level }}_since
  {%- endfor %}
from on_levels
inner join begins on on_levels.account = begins.account
