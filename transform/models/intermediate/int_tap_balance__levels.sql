{#- One row per account: whether it is empty, critical or low, and since when.

    Each snapshot of the last memory_days is judged as on its day. Below a threshold an account is
    critical or low, above it by the release margin it is not, and between the two the last decision
    holds; where there is none, the worse. -#}
{{ config(materialized='table') }}
{%- set settings = settings() %}
{%- set released = 100 + settings['release_margin_percent'] %}
{%- set midnight = 'cast(' ~ as_of_day() ~ ' as ' ~ dbt.type_timestamp() ~ ')' %}
{%- set levels = ['empty', 'critical', 'low'] %}

with latest as (
  select
    *,
    cast({{ threshold('critical_days') }} * 200 as integer) as critical_days200,
    cast({{ threshold('low_days') }} * 200 as integer) as low_days200,
    cast({{ threshold('min_balance', 'numeric(38, 4)') }} * 10000 as {{ type_amount() }})
      as min_balance10000
  from {{ ref('int_tap_balance__latest') }}
),

snapshots as (
  select account, product, currency, snapshot_at, total_balance10000, balance10000
  from {{ ref('int_tap_balance__snapshots') }}
  where
    snapshot_at >= cast({{ as_of_day(-settings['memory_days']) }} as {{ dbt.type_timestamp() }})
    and snapshot_at <= {{ as_of() }}
),

all_rates as (
  select * from {{ ref('int_tap_balance__rates') }}
  where day >= {{ as_of_day(-settings['memory_days']) }} and day <= {{ as_of_day() }}
),

rates as {{ materialized() }} (
  select
    all_rates.account,
    all_rates.day,
    -- What is known of another currency is no help.
    case
      when all_rates.complete_days >= 3 and {{ same_series('all_rates', 'latest') }}
        then all_rates.complete_days
    end as complete_days,
    all_rates.burn_per_day10000,
    all_rates.highest10000,
    all_rates.low_factor_4e6,
    {%- for name in ['critical_days200', 'critical_days200 / 2', 'low_days200'] %}
    {%- set level = ['critical', 'cautious', 'low'][loop.index0] %}
    {%- for j in [0, 1] %}
    {{ burned_from(j, name) }} as {{ level }}_from_{{ j }},
    {%- endfor %}
    {%- endfor %}
    latest.critical_days200
  from all_rates
  inner join latest on all_rates.account = latest.account
),

-- What each snapshot said when it was new, and what the newest one says today.
moments as (
  select
    snapshots.account,
    snapshots.snapshot_at as moment,
    cast(snapshots.snapshot_at as date) as day,
    {{ seconds_between(
      'cast(cast(snapshots.snapshot_at as date) as ' ~ dbt.type_timestamp() ~ ')',
      'snapshots.snapshot_at'
    ) }} as begun,
    snapshots.total_balance10000,
    snapshots.balance10000,
    latest.min_balance10000
  from snapshots
  inner join latest on {{ same_series('snapshots', 'latest') }}
  union all
  select
    account,
    {{ midnight }} as moment,
    {{ as_of_day() }} as day,
    0 as begun,
    total_balance10000,
    balance10000,
    min_balance10000
  from latest
  where snapshot_at < {{ midnight }}
),

needs as {{ materialized() }} (
  select
    moments.account,
    moments.moment,
    cast(moments.total_balance10000 as {{ type_amount() }}) as total10000,
    cast(least(moments.total_balance10000, moments.balance10000) as {{ type_amount() }})
      as paid10000,
    moments.total_balance10000 < moments.min_balance10000 as is_below_min_balance,
    moments.total_balance10000 * 0.0001 < {{ settings['idle_min_balance'] }}
    and rates.burn_per_day10000 = 0 as is_idle_and_below,
    rates.complete_days,
    rates.highest10000,
    rates.low_factor_4e6,
    rates.critical_days200
    {%- for level in ['critical', 'cautious', 'low'] %},
    {{ need_e6(level ~ '_from_0', level ~ '_from_1', 'begun') }} as {{ level }}_e6
    {%- endfor %}
  from moments
  left join rates on moments.account = rates.account and moments.day = rates.day
),

judged as (
  select
    account,
    moment,
    total10000 <= 0 as is_empty,
    total10000 > 0 as is_not_empty,
    case
      when is_below_min_balance or is_idle_and_below then true
      when complete_days is null then null
      when complete_days < {{ settings['min_history_days'] }}
        then total10000 * 200 < critical_days200 * highest10000
      else
        total10000 * 1000000 < critical_e6
        or paid10000 * 4000000000000 < cautious_e6 * low_factor_4e6
    end as is_critical,
    case
      when is_below_min_balance or is_idle_and_below then false
      when complete_days is null then null
      when complete_days < {{ settings['min_history_days'] }}
        then total10000 * 20000 >= critical_days200 * highest10000 * {{ released }}
      else
        total10000 * 100000000 >= critical_e6 * {{ released }}
        and paid10000 * 400000000000000 >= cautious_e6 * low_factor_4e6 * {{ released }}
    end as is_not_critical,
    complete_days >= {{ settings['min_history_days'] }} and total10000 * 1000000 < low_e6 as is_low,
    complete_days >= {{ settings['min_history_days'] }}
    and total10000 * 100000000 >= low_e6 * {{ released }} as is_not_low
  from needs
),

decisions as (
  select
    account,
    max(moment) as last_at,
    {%- for level in levels %}
    max(case when is_{{ level }} then moment end) as last_{{ level }}_at,
    max(case when is_not_{{ level }} then moment end) as last_not_{{ level }}_at{{ ',' if not loop.last }}
    {%- endfor %}
  from judged
  group by account
),

on_levels as (
  select
    decisions.*,
    rates.complete_days
    {%- for level in levels %},
    case
      -- Without a rate, only what the newest snapshot says counts.
      when rates.complete_days is null or '{{ level }}' = 'empty'
        then coalesce(last_{{ level }}_at = last_at, false)
      when '{{ level }}' = 'low' and rates.complete_days < {{ settings['min_history_days'] }} then false
      else last_not_{{ level }}_at is null or coalesce(last_{{ level }}_at > last_not_{{ level }}_at, false)
    end as is_{{ level }}
    {%- endfor %}
  from decisions
  left join rates on decisions.account = rates.account and rates.day = {{ as_of_day() }}
),

begins as (
  select
    judged.account
    {%- for level in levels %},
    min(
      case
        when on_levels.last_not_{{ level }}_at is null or judged.moment > on_levels.last_not_{{ level }}_at
          then judged.moment
      end
    ) as {{ level }}_since
    {%- endfor %}
  from judged
  inner join on_levels on judged.account = on_levels.account
  where on_levels.is_empty or on_levels.is_critical or on_levels.is_low
  group by judged.account
)

select
  latest.account
  {%- for level in levels %},
  coalesce(on_levels.is_{{ level }}, {% if level == 'empty' %}latest.total_balance10000 <= 0{% elif level == 'critical' %}latest.total_balance10000 < latest.min_balance10000{% else %}false{% endif %}) as is_{{ level }},
  case when on_levels.is_{{ level }} then begins.{{ level }}_since end as {{ level }}_since
  {%- endfor %}
from latest
left join on_levels on latest.account = on_levels.account
left join begins on latest.account = begins.account
