{#- One row per account: how long its balance lasts, and whether somebody must top up. -#}
{{ config(materialized='table', post_hook='{{ analyze_once() }}') }}
{%- set settings = settings() %}
{%- set horizon = settings['horizon_days'] * 86400 %}
{%- set step = (settings['top_up_step'] * 10000) | round | int %}
{%- set midnight = 'cast(' ~ as_of_day() ~ ' as ' ~ dbt.type_timestamp() ~ ')' %}

with latest as (
  select
    *,
    cast(total_balance10000 as {{ type_amount() }}) as total10000,
    cast(least(total_balance10000, balance10000) as {{ type_amount() }}) as paid10000,
    greatest(0, {{ seconds_between(midnight, 'snapshot_at') }}) as begun,
    age_seconds > {{ settings['stale_after_seconds'] }} as is_stale,
    {{ threshold('critical_days') }} as critical_days,
    {{ threshold('low_days') }} as low_days,
    cast({{ threshold('target_days') }} * 200 as integer) as target_days200,
    {{ threshold('min_balance', 'numeric(38, 4)') }} as min_balance
  from {{ ref('balance_latest') }}
),

rates as (
  select
    account as rated_account,
    complete_days,
    burn_per_day10000,
    {%- for k in range(7) %}
    ahead_{{ k }}_e6,
    {%- endfor %}
    low_factor_4e6,
    high_factor_4e6
  from {{ ref('int_tap_balance__rates') }}
  where day = {{ as_of_day() }}
),

levels as (
  select * from {{ ref('int_tap_balance__levels') }}
),

paces as (
  select * from {{ ref('int_tap_balance__paces') }}
),

lengths as (
  select
    latest.*,
    rates.*,
    levels.is_empty,
    levels.is_critical,
    levels.is_low,
    paces.surge_seconds_left,
    paces.pace_seconds_left,
    paces.pace_per_day10000,
    -- Too little for one more message.
    rates.burn_per_day10000 = 0
    and latest.total10000 * 0.0001 < {{ settings['idle_min_balance'] }} as is_spent,
    {{ seconds_left('latest.total10000', 'latest.begun') }} as total_seconds,
    {{ seconds_left('latest.paid10000', 'latest.begun') }} as paid_seconds,
    {{ need_e6(
      '(' ~ burned_from(0, 'latest.target_days200') ~ ')',
      '(' ~ burned_from(1, 'latest.target_days200') ~ ')',
      'latest.begun'
    ) }} as target_e6
  from latest
  inner join levels on latest.account = levels.account
  left join rates on latest.account = rates.rated_account
  left join paces on latest.account = paces.account
),

surges as (
  select
    lengths.*,
    case
      when burn_per_day10000 is null then pace_seconds_left else surge_seconds_left
    end as seconds_of_surge
  from lengths
),

estimates as (
  select
    surges.*,
    case
      when is_stale then 'stale'
      when is_empty then 'empty'
      when is_critical then 'critical'
      when coalesce(complete_days, 0) < {{ settings['min_history_days'] }}
        then case when seconds_of_surge is null then 'accumulating' else 'critical' end
      when is_low then 'low'
      else 'ok'
    end as status,
    case
      when burn_per_day10000 is null then null
      when is_spent then 0
      when total_seconds <= {{ horizon }} then total_seconds
    end as seconds_left,
    case
      when burn_per_day10000 is null then null
      when is_spent then 0
      else least(
        {{ divided_down('paid_seconds * 4000000', 'low_factor_4e6') }},
        coalesce(seconds_of_surge, {{ horizon }} + 1)
      )
    end as seconds_left_low,
    case
      when burn_per_day10000 is null then null
      when is_spent then 0
      else {{ divided_up('total_seconds * high_factor_4e6', 4000000) }}
    end as seconds_left_high,
    greatest(
      min_balance * 10000,
      case
        when is_spent then {{ settings['idle_min_balance'] * 10000 }}
        when burn_per_day10000 is null then pace_per_day10000 * target_days200 / 200
        else {{ divided_up('target_e6', 1000000) }}
      end
    ) as target10000
  from surges
),

missing as (
  select
    estimates.*,
    -- Where the total is enough, gifts are counted that can expire.
    ceil(target10000 - case when total10000 < target10000 then total10000 else paid10000 end)
      as missing10000
  from estimates
),

top_ups as (
  select
    missing.*,
    case
      when status in ('empty', 'critical', 'low') and missing10000 > 0
        then {{ divided_up('cast(missing10000 as ' ~ type_amount() ~ ')', step) }} * {{ step }}
    end as top_up10000
  from missing
)

select
  account,
  product,
  currency,
  status,
  snapshot_at,
  age_seconds,
  {%- for amount in ['balance', 'gift_balance', 'total_balance'] %}
  {{ amount }}10000,
  {{ amount }},
  {%- endfor %}
  cast(coalesce(complete_days, 0) as integer) as complete_days,
  cast(burn_per_day10000 as {{ type_amount() }}) as burn_per_day10000,
  {{ decimal_of('burn_per_day10000') }} as burn_per_day,
  cast({{ divided_down('seconds_left', 8640) }} * 0.1 as numeric(9, 1)) as days_left,
  cast(
    case when seconds_left_low <= {{ horizon }} then {{ divided_down('seconds_left_low', 8640) }} end
    * 0.1 as numeric(9, 1)
  ) as days_left_low,
  cast(
    case when seconds_left_high <= {{ horizon }} then {{ divided_up('seconds_left_high', 8640) }} end
    * 0.1 as numeric(9, 1)
  ) as days_left_high,
  case
    when seconds_left < 172800
      then {{ dbt.dateadd('second', 'cast(seconds_left as integer)', 'snapshot_at') }}
  end as runs_out_at,
  cast({{ dbt.dateadd('second', 'cast(seconds_left as integer)', 'snapshot_at') }} as date)
    as runs_out_on,
  cast({{ divided_down('seconds_of_surge', 360) }} * 0.1 as numeric(9, 1)) as surge_hours_left,
  min_balance,
  cast(top_up10000 as {{ type_amount() }}) as top_up10000,
  {{ decimal_of('top_up10000') }} as top_up,
  critical_days,
  low_days
from top_ups
