{#- One row per account: how long its balance lasts, and whether somebody must top up. -#}
with latest as (
  select
    latest.*,
    {{ threshold('critical_days') }} as critical_days,
    {{ threshold('low_days') }} as low_days
  from {{ ref('balance_latest') }} as latest
),

-- The days on which to judge: today, and those whose snapshots say where an account comes from.
judged as (
  {{ each_day('latest', as_of_day(-var('memory_days')), as_of_day()) }}
),

-- For each of them, the complete days before it, the dearest first.
ranked as (
  select
    judged.account,
    judged.day,
    daily.burn10000,
    row_number() over (
      partition by judged.account, judged.day order by daily.burn10000 desc
    ) as place
  from judged
  inner join {{ ref('balance_daily') }} as daily
    on
      judged.account = daily.account
      and judged.product = daily.product
      and coalesce(judged.currency, '') = coalesce(daily.currency, '')
      and daily.day < judged.day
      and daily.day >= {{ days_after('judged.day', -var('burn_window_days')) }}
  where
    daily.coverage = 'complete'
    and daily.day >= {{ as_of_day(-var('memory_days') - var('burn_window_days')) }}
),

-- A winsorized mean: the dearest day counts as if it had cost what the second dearest did. Where
-- nothing is left then, the dearest is all that is known.
means as (
  select
    account,
    day,
    count(*) as complete_days,
    cast(
      case
        when max(case when place = 2 then burn10000 end) > 0
          then sum(burn10000) - max(burn10000) + max(case when place = 2 then burn10000 end)
        else sum(burn10000)
      end as {{ type_amount() }}
    ) as burn10000,
    cast(percentile_disc(0.25) within group (order by burn10000) as {{ type_amount() }})
      as lower_quartile10000,
    cast(percentile_disc(0.75) within group (order by burn10000) as {{ type_amount() }})
      as upper_quartile10000
  from ranked
  group by account, day
),

burn as (
  select
    account,
    day,
    burn_per_day10000,
    least(lower_quartile10000, burn_per_day10000) as burn_per_day_low10000,
    greatest(upper_quartile10000, burn_per_day10000) as burn_per_day_high10000
  from (
    select means.*, {{ divided_up('burn10000', 'complete_days') }} as burn_per_day10000
    from means
    where complete_days >= {{ [var('min_history_days'), 2] | max }}
  ) as means
),

-- What each snapshot said when it was new, and what the newest one says now.
moments as (
  select
    account,
    product,
    currency,
    snapshot_at as moment,
    cast(snapshot_at as date) as day,
    cast(total_balance10000 as {{ type_amount() }}) as total10000
  from {{ ref('balance_changes') }}
  where
    snapshot_at >= cast({{ as_of_day(-var('memory_days')) }} as {{ dbt.type_timestamp() }})
    and snapshot_at <= {{ as_of() }}
  union all
  select
    account,
    product,
    currency,
    {{ as_of() }} as moment,
    {{ as_of_day() }} as day,
    cast(total_balance10000 as {{ type_amount() }}) as total10000
  from latest
),

-- Below a threshold is a yes, above it by the margin a no, and between the two nothing is decided:
-- what was decided last holds, and the worse level if nothing has been within memory.
decisions as (
  select
    moments.account,
    {%- for level in ['critical', 'low'] %}
    max(case when total10000 < {{ level }}_days * burn_per_day10000 then moment end)
      as last_{{ level }}_at,
    max(
      case
        when
          total10000 * 100
          >= {{ level }}_days * {{ 100 + var('release_margin_percent') }} * burn_per_day10000
          then moment
      end
    ) as last_not_{{ level }}_at{{ ',' if not loop.last }}
    {%- endfor %}
  from moments
  inner join latest
    on
      moments.account = latest.account
      and moments.product = latest.product
      and coalesce(moments.currency, '') = coalesce(latest.currency, '')
  inner join burn on moments.account = burn.account and moments.day = burn.day
  group by moments.account
)

select
  latest.account,
  latest.product,
  latest.currency,
  case
    when latest.age_seconds > {{ stale_after_seconds() }} then 'stale'
    when latest.total_balance10000 <= 0 then 'empty'
    when burn.account is null then 'accumulating'
    {%- for level in ['critical', 'low'] %}
    when
      decisions.last_not_{{ level }}_at is null
      or decisions.last_{{ level }}_at > decisions.last_not_{{ level }}_at
      then '{{ level }}'
    {%- endfor %}
    else 'ok'
  end as status,
  latest.snapshot_at,
  latest.age_seconds,
  latest.balance10000,
  latest.gift_balance10000,
  latest.total_balance10000,
  coalesce(means.complete_days, 0) as complete_days,
  burn.burn_per_day10000,
  burn.burn_per_day_low10000,
  burn.burn_per_day_high10000,
  burn.days_left,
  burn.days_left_low,
  burn.days_left_high,
  cast(
    {{ dbt.dateadd('second', 'cast(burn.days_left * 86400 as integer)', 'latest.snapshot_at') }}
    as date
  ) as runs_out_on,
  latest.critical_days,
  latest.low_days
from latest
left join (
  select
    burn.*,
    {{ days_of('total10000', 'burn_per_day10000') }} as days_left,
    {{ days_of('paid10000', 'burn_per_day_high10000') }}
      as days_left_low,
    {{ days_of('total10000', 'burn_per_day_low10000') }} as days_left_high
  from burn
  inner join (
    select
      account,
      cast(total_balance10000 as {{ type_amount() }}) as total10000,
      cast(least(total_balance10000, balance10000) as {{ type_amount() }}) as paid10000
    from latest
  ) as latest
    on burn.account = latest.account
  where burn.day = {{ as_of_day() }}
) as burn
  on latest.account = burn.account
left join means on latest.account = means.account and means.day = {{ as_of_day() }}
left join decisions on latest.account = decisions.account
