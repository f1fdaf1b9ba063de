{#- One row per account and judged day: what each of the seven days from then on will burn.

    Judged are today and the days whose snapshots are replayed for the statuses. Amounts are x 10000,
    those whose name ends in _e6 times another million; rates and ratios are in millionths. -#}
{{
  config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['account', 'day'],
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['account', 'day']}, {'columns': ['day']}, {'columns': ['built_to']}],
    pre_hook='{{ avoid_nested_loops() }}',
    post_hook='{{ analyze_once() }}',
  )
}}
{%- set first_day = date_literal(first_judged_day(is_incremental(), 1)) %}
{%- set million = 1000000 %}
{%- set weekdays = range(7) %}

with latest as (
  select
    account,
    product,
    currency,
    first_currency,
    snapshot_at
  from {{ ref('int_tap_balance__latest') }}
),

days as (
  select
    account,
    product,
    currency,
    day,
    burn10000
  from {{ ref('int_tap_balance__days') }}
  where
    coverage = 'complete'
    and day >= {{ days_after(first_day, -28) }}
    and day < {{ as_of_day() }}
),

newest as (
  select max(snapshot_at) as snapshot_at from latest
),

judged as (
  select each_day.* from {{ each_day('latest', first_day, as_of_day()) }} as each_day
),

past as (
  select
    judged.account,
    judged.day,
    {{ days_between('days.day', 'judged.day') }} as age,
    cast(days.burn10000 as {{ type_amount() }}) as burn10000
  from judged
  inner join days
    on
      {{ same_series('days', 'judged') }}
      and judged.day > days.day
      and {{ days_after('judged.day', -28) }} <= days.day
),

placed as (
  select
    past.*,
    mod(28 - age, 7) as ahead,
    row_number() over (partition by account, day order by burn10000 desc, age asc) as place,
    lead(burn10000) over (partition by account, day order by burn10000 desc, age asc) as next10000,
    max(case when burn10000 > 0 then age end) over (partition by account, day) as first_burn_age
  from past
),

-- Days before the first that burned are null, except for the last three. The highest day is capped at
-- the second highest, unless that one burned nothing.
capped as (
  select
    account,
    day,
    age,
    ahead,
    burn10000 as uncapped10000,
    case
      when age > greatest(3, coalesce(first_burn_age, age)) then null
      when place = 1 and next10000 > 0 then next10000
      else burn10000
    end as burn10000
  from placed
),

sums as (
  select
    account,
    day,
    count(*) as complete_days,
    count(burn10000) as counted_days,
    max(uncapped10000) as highest10000,
    coalesce(sum(case when age <= 7 then burn10000 end), 0) as last_burn10000,
    coalesce(sum(case when age > 7 then burn10000 end), 0) as older_burn10000,
    count(case when age <= 7 then burn10000 end) as last_days,
    count(case when age > 7 then burn10000 end) as older_days
    {%- for k in weekdays %},
    sum(case when ahead = {{ k }} then burn10000 end) as burn_{{ k }},
    count(case when ahead = {{ k }} then burn10000 end) as days_{{ k }},
    count(case when ahead = {{ k }} and age <= 7 then burn10000 end) as last_days_{{ k }}
    {%- endfor %}
  from capped
  group by account, day
),

means as (
  select
    sums.*
    {%- for k in weekdays %},
    {{ divided_down('burn_' ~ k ~ ' * ' ~ million, 'nullif(days_' ~ k ~ ', 0)') }} as mean_{{ k }}_e6
    {%- endfor %}
  from sums
  where complete_days >= 3
),

expected as (
  select
    means.*,
    {{ divided_down(
      sum_of(weekdays, 'coalesce(mean_#_e6, 0)'), sum_of(weekdays, 'least(days_#, 1)')
    ) }} as typical_e6,
    {{ sum_of(weekdays, 'last_days_# * coalesce(mean_#_e6, 0)') }} as last_expected_e6,
    {{ sum_of(weekdays, '(days_# - last_days_#) * coalesce(mean_#_e6, 0)') }} as older_expected_e6
  from means
),

-- How the last week, and the three before it, compare with the means.
last_ratios as (
  select
    expected.*,
    case
      when last_days >= 3 and last_expected_e6 > 0
        then {{ divided_down(
          'last_burn10000 * ' ~ million * million, 'nullif(last_expected_e6, 0)'
        ) }}
      when typical_e6 > 0
        then {{ divided_down(
          '(last_burn10000 + older_burn10000) * ' ~ million * million,
          'nullif(last_expected_e6 + older_expected_e6, 0)'
        ) }}
      else 0
    end as last_ratio
  from expected
),

ratios as (
  select
    last_ratios.*,
    case
      when older_days >= 3 and older_expected_e6 > 0
        then {{ divided_down(
          'older_burn10000 * ' ~ million * million, 'nullif(older_expected_e6, 0)'
        ) }}
      else last_ratio
    end as older_ratio
  from last_ratios
),

related as (
  select
    capped.account,
    capped.day,
    capped.age,
    capped.burn10000,
    ratios.counted_days,
    ratios.typical_e6,
    case when capped.age <= 7 then ratios.last_ratio else ratios.older_ratio end as own_ratio,
    case capped.ahead{{ case_of(weekdays, 'when # then ratios.mean_#_e6') }} end as mean_e6
  from ratios
  inner join capped on ratios.account = capped.account and ratios.day = capped.day
  where capped.burn10000 is not null
),

-- Each day in millionths of its weekday's mean.
shares as (
  select
    related.*,
    {{ divided_down('burn10000 * ' ~ million * million, 'nullif(mean_e6, 0)') }} as share
  from related
),

-- How far the days are from the ratio of their weeks, the mean of the distances; and the sums that the
-- straight line through the shares takes.
lines as (
  select
    account,
    day,
    {{ divided_down(
      'sum(abs(burn10000 * ' ~ million ~ ' - '
      ~ divided_down('case when counted_days < 10 then typical_e6 else mean_e6 end * own_ratio', million)
      ~ '))', 'count(*)'
    ) }} as deviation_e6,
    cast(count(share) as {{ type_amount() }}) as days,
    cast(sum(case when share is not null then age end) as {{ type_amount() }}) as ages,
    cast(sum(case when share is not null then age * age end) as {{ type_amount() }}) as squared_ages,
    sum(share) as shares,
    sum(age * share) as aged_shares,
    sum(share * share) as squared_shares
  from shares
  group by account, day
),

-- Their variances and covariance, each times the square of the number of days.
spreads as (
  select
    lines.*,
    days * squared_ages - ages * ages as age_spread,
    days * squared_shares - shares * shares as share_spread,
    days * aged_shares - ages * shares as fall
  from lines
),

-- The weight of the last week: a quarter, and up to all where it has clearly burned more. And that of
-- the line: 0 up to where chance alone would slope it as much, near 1 where the days are close to it.
weights as (
  select
    ratios.*,
    spreads.deviation_e6,
    abs(ratios.last_ratio - ratios.older_ratio) as difference,
    case
      when ratios.last_ratio <= ratios.older_ratio then {{ million // 4 }}
      when spreads.deviation_e6 = 0 then {{ million }}
      else least({{ million }}, greatest({{ million // 4 }}, {{ divided_down(
        '4 * abs(last_ratio - older_ratio) * typical_e6', 'nullif(10 * deviation_e6, 0)'
      ) }}))
    end as weight,
    case
      when spreads.days >= 21 and spreads.fall <> 0
        then greatest(0, {{ million }} - {{ divided_down(
          '6 * ' ~ million ~ ' * greatest(0, age_spread * share_spread - fall * fall)',
          'nullif(spreads.days * fall * fall, 0)'
        ) }})
      else 0
    end as line_weight,
    -- Five days ahead.
    {{ divided_down(
      'greatest(0, shares * age_spread - fall * (ages + 5 * spreads.days))',
      'nullif(spreads.days * age_spread, 0)'
    ) }} as line_ratio
  from ratios
  inner join spreads on ratios.account = spreads.account and ratios.day = spreads.day
),

mixed as (
  select
    weights.*,
    {{ divided_down(
      'older_ratio * (' ~ million ~ ' - weight) + last_ratio * weight', million
    ) }} as ratio_of_weeks
  from weights
),

rated as (
  select
    mixed.*,
    case
      when line_weight = 0 then ratio_of_weeks
      else least(
        {{ divided_down('13 * ratio_of_weeks', 10) }},
        greatest(
          {{ divided_down('7 * ratio_of_weeks', 10) }},
          {{ divided_down(
            'ratio_of_weeks * (' ~ million ~ ' - line_weight) + line_ratio * line_weight', million
          ) }}
        )
      )
    end as ratio
  from mixed
),

scaled as (
  select rated.*, {{ divided_down('typical_e6 * ratio', million) }} as burn_per_day_e6
  from rated
),

uncertain as (
  select
    scaled.*,
    case
      when burn_per_day_e6 > 0
        then least({{ 2 * million }}, {{ divided_down(
          'deviation_e6 * ' ~ million, 'nullif(burn_per_day_e6, 0)'
        ) }})
      else 0
    end as noise,
    case
      when least(last_ratio, older_ratio) > 0
        then least({{ 2 * million }}, {{ divided_down(
          'difference * ' ~ million, 'nullif(least(last_ratio, older_ratio), 0)'
        ) }})
      when difference > 0 then {{ 2 * million }}
      else 0
    end as change
  from scaled
)

select
  judged.account,
  judged.product,
  judged.currency,
  judged.day,
  newest.snapshot_at as built_to,
  cast(coalesce(sums.complete_days, 0) as integer) as complete_days,
  cast(sums.highest10000 as {{ type_amount() }}) as highest10000,
  cast({{ divided_up('typical_e6 * ratio', million * million) }} as {{ type_amount() }})
    as burn_per_day10000,
  {%- for k in weekdays %}
  cast({{ divided_down('coalesce(mean_' ~ k ~ '_e6, typical_e6) * ratio', million) }}
    as {{ type_amount() }}) as ahead_{{ k }}_e6,
  {%- endfor %}
  -- The factors of the range, in quarters of a millionth: 1.05 + 1.25 noise + 0.5 change, and
  -- 1.05 + 0.5 noise + 0.75 change.
  cast({{ 4200000 }} + 5 * uncertain.noise + 2 * uncertain.change as {{ type_amount() }}) as low_factor_4e6,
  cast({{ 4200000 }} + 2 * uncertain.noise + 3 * uncertain.change as {{ type_amount() }}) as high_factor_4e6
from judged
left join sums on judged.account = sums.account and judged.day = sums.day
left join uncertain on sums.account = uncertain.account and sums.day = uncertain.day
cross join newest
