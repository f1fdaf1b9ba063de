{#- One row per account and judged day: when its snapshots were last below each threshold, and above.

    Each snapshot is judged as on its day. Below a threshold an account is critical or low, above it by
    the release margin it is not, and between the two nothing is decided. A row stays until its day can
    have changed, or a setting has. -#}
{{
  config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['account', 'day'],
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['account', 'day']}, {'columns': ['day']}, {'columns': ['built_to']}],
    post_hook='{{ analyze_once() }}',
  )
}}
{%- set settings = settings() %}
{%- set released = 100 + settings['release_margin_percent'] %}
{%- set midnight = 'cast(' ~ as_of_day() ~ ' as ' ~ dbt.type_timestamp() ~ ')' %}
{%- set first_day = date_literal(first_judged_day(is_incremental(), 0, settings_key())) %}
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
    snapshot_at >= cast({{ first_day }} as {{ dbt.type_timestamp() }})
    and snapshot_at <= {{ as_of() }}
),

all_rates as (
  select * from {{ ref('int_tap_balance__rates') }}
  where day >= {{ first_day }} and day <= {{ as_of_day() }}
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
    snapshots.product,
    snapshots.currency,
    false as is_carried,
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
    product,
    currency,
    true as is_carried,
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
    moments.product,
    moments.currency,
    moments.day,
    moments.is_carried,
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
    product,
    currency,
    day,
    is_carried,
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

ends as (
  select
    judged.*
    {%- for level in levels %},
    max(case when is_not_{{ level }} then moment end)
      over (partition by account, product, currency, day) as last_not_{{ level }}_at
    {%- endfor %}
  from judged
),

newest as (
  select max(snapshot_at) as snapshot_at from latest
)

select
  ends.account,
  ends.product,
  ends.currency,
  ends.day,
  ends.is_carried,
  newest.snapshot_at as built_to,
  '{{ settings_key() }}' as settings_key,
  max(ends.moment) as last_at
  {%- for level in levels %},
  max(case when ends.is_{{ level }} then ends.moment end) as last_{{ level }}_at,
  ends.last_not_{{ level }}_at,
  -- The first moment after that, decided or not.
  min(
    case
      when ends.last_not_{{ level }}_at is null or ends.moment > ends.last_not_{{ level }}_at
        then ends.moment
    end
  ) as {{ level }}_since
  {%- endfor %}
from ends
cross join newest
group by
  ends.account,
  ends.product,
  ends.currency,
  ends.day,
  ends.is_carried,
  newest.snapshot_at
  {%- for level in levels %},
  ends.last_not_{{ level }}_at
  {%- endfor %}
