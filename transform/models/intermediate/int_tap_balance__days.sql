{#- One row per account and UTC day, from its first snapshot to `as_of`, including unknown days. -#}
{{
  config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['account', 'day'],
    on_schema_change='append_new_columns',
    indexes=[
      {'columns': ['account', 'day']},
      {'columns': ['day']},
      {'columns': ['closing_snapshot_at']},
    ],
    post_hook='{{ analyze_once() }}',
  )
}}
{%- set since = rebuilt_since('closing_snapshot_at') if is_incremental() %}
{%- if since %}
  {#- Whole days are rebuilt; a snapshot at midnight belongs to the day before. -#}
  {%- set since = (since - modules.datetime.timedelta(seconds=1))
      .replace(hour=0, minute=0, second=0, microsecond=0) %}
{%- endif %}
{%- set interval_seconds = settings()['snapshot_interval_seconds'] %}
{%- set begin = 'cast(days.day as ' ~ dbt.type_timestamp() ~ ')' %}
{%- set end = 'cast(' ~ days_after('days.day', 1) ~ ' as ' ~ dbt.type_timestamp() ~ ')' %}

with snapshots as (
  select
    account,
    product,
    currency,
    previous_snapshot_at,
    snapshot_at,
    {{ differences() }},
    -- The whole of a change counts on the day that its snapshot closes, also after a gap.
    case
      when previous_snapshot_at is null then cast(snapshot_at as date)
      else {{ day_closed_by('snapshot_at') }}
    end as day
  from {{ ref('int_tap_balance__snapshots') }}
  where
    snapshot_at <= {{ as_of() }}
    {%- if since %}
    and snapshot_at >= {{ timestamp_literal(since) }}
    {%- endif %}
),

changes as (
  select
    snapshots.*,
    {{ movements() }}
  from snapshots
  {%- if since %}
  where day >= {{ date_literal(since) }}
  {%- endif %}
),

hourly as (
  select
    changes.*,
    {{ hourly('spend10000 + gift_used_or_expired10000', 'previous_snapshot_at', 'snapshot_at') }}
      as hourly_burn10000
  from changes
),

paced as (
  select
    hourly.*
    {%- for before in [1, 2] %},
    lag(hourly_burn10000, {{ before }}) over (
      partition by account, product, currency, day order by snapshot_at
    ) as hourly_burn_{{ before }}_before10000
    {%- endfor %}
  from hourly
),

-- Of two intervals in a row, the lower; null for the first of the day.
in_pairs as (
  select
    paced.*,
    case
      when hourly_burn10000 <= hourly_burn_1_before10000 then hourly_burn10000
      else hourly_burn_1_before10000
    end as of_two10000
  from paced
),

labelled_days as (
  select
    account,
    product,
    currency,
    day,
    count(*) as snapshots,
    sum(case when {{ is_gap('previous_snapshot_at', 'snapshot_at') }} then 1 else 0 end) as gaps,
    min(coalesce(previous_snapshot_at, snapshot_at)) as known_from,
    max(snapshot_at) as closing_snapshot_at,
    sum(spend10000) as spend10000,
    sum(top_up10000) as top_up10000,
    sum(gift_granted10000) as gift_granted10000,
    sum(gift_used_or_expired10000) as gift_used_or_expired10000,
    max(hourly_burn10000) as highest_hourly_burn10000,
    max(of_two10000) as sustained_hourly_burn10000,
    -- The same of three.
    max(
      case when of_two10000 <= hourly_burn_2_before10000 then of_two10000 else hourly_burn_2_before10000 end
    ) as lasting_hourly_burn10000
  from in_pairs
  group by account, product, currency, day
),

labels as (
  select
    account,
    product,
    currency,
    day,
    closing_snapshot_at
  from labelled_days
  {%- if since %}
  union all
  -- Each account that was there before has a row on the day before.
  select
    account,
    product,
    currency,
    {{ date_literal(since) }} as day,
    cast(null as {{ dbt.type_timestamp() }}) as closing_snapshot_at
  from {{ this.render() }}
  where day = {{ date_literal(since - modules.datetime.timedelta(days=1)) }}
  {%- endif %}
),

-- The first currency that is known is that of the time before it, too.
first_currencies as (
  select
    account,
    product,
    currency as first_currency
  from (
    select
      account,
      product,
      currency,
      row_number() over (
        partition by account, product
        order by day, case when closing_snapshot_at is null then 0 else 1 end, closing_snapshot_at
      ) as place
    from labels
    where currency is not null
  ) as known
  where place = 1
),

labels_of_series as (
  select
    labels.account,
    labels.product,
    coalesce(labels.currency, first_currencies.first_currency) as series_currency,
    labels.currency,
    labels.day
  from labels
  left join first_currencies
    on labels.account = first_currencies.account and labels.product = first_currencies.product
),

series as (  -- noqa: ST03
  select
    account,
    product,
    series_currency,
    min(day) as first_day,
    min(case when currency is not null then day end) as known_day
  from labels_of_series
  group by account, product, series_currency
),

per_day as (
  select
    labelled_days.account,
    labelled_days.product,
    coalesce(labelled_days.currency, first_currencies.first_currency) as series_currency,
    labelled_days.day,
    sum(labelled_days.snapshots) as snapshots,
    sum(labelled_days.gaps) as gaps,
    min(labelled_days.known_from) as known_from,
    max(labelled_days.closing_snapshot_at) as closing_snapshot_at,
    sum(labelled_days.spend10000) as spend10000,
    sum(labelled_days.top_up10000) as top_up10000,
    sum(labelled_days.gift_granted10000) as gift_granted10000,
    sum(labelled_days.gift_used_or_expired10000) as gift_used_or_expired10000,
    max(labelled_days.highest_hourly_burn10000) as highest_hourly_burn10000,
    max(labelled_days.sustained_hourly_burn10000) as sustained_hourly_burn10000,
    max(labelled_days.lasting_hourly_burn10000) as lasting_hourly_burn10000
  from labelled_days
  left join first_currencies
    on
      labelled_days.account = first_currencies.account
      and labelled_days.product = first_currencies.product
  group by
    labelled_days.account,
    labelled_days.product,
    coalesce(labelled_days.currency, first_currencies.first_currency),
    labelled_days.day
),

days as (
  select each_day.* from {{ each_day('series', 'first_day', as_of_day()) }} as each_day
),

closing as (
  select * from {{ ref('int_tap_balance__snapshots') }}
  {%- if since %}
  where snapshot_at >= {{ timestamp_literal(since) }}
  {%- endif %}
)

select
  days.account,
  days.product,
  case when days.day >= days.known_day then days.series_currency end as currency,
  days.day,
  case
    when per_day.snapshots is null then 'unknown'
    when
      per_day.known_from <= {{ begin }}
      and 2 * {{ seconds_between('per_day.known_from', begin) }} <= 3 * {{ interval_seconds }}
      and 2 * {{ seconds_between('per_day.closing_snapshot_at', end) }} <= 3 * {{ interval_seconds }}
      -- 24 hours, give or take a tenth: with long intervals the two above say little.
      and {{ seconds_between('per_day.known_from', 'per_day.closing_snapshot_at') }}
      between 77760 and 95040
      and days.day < {{ as_of_day() }}
      then 'complete'
    else 'partial'
  end as coverage,
  cast(coalesce(per_day.snapshots, 0) as integer) as snapshots,
  cast(coalesce(per_day.gaps, 0) as integer) as gaps,
  cast(
    closing.balance10000 + coalesce(per_day.spend10000 - per_day.top_up10000, 0)
    as {{ type_amount() }}
  ) as opening_balance10000,
  closing.balance10000 as closing_balance10000,
  cast(
    closing.gift_balance10000
    + coalesce(per_day.gift_used_or_expired10000 - per_day.gift_granted10000, 0)
    as {{ type_amount() }}
  ) as opening_gift_balance10000,
  closing.gift_balance10000 as closing_gift_balance10000,
  closing.total_balance10000 as closing_total_balance10000,
  {%- for amount in ['spend', 'top_up', 'gift_granted', 'gift_used_or_expired'] %}
  cast(per_day.{{ amount }}10000 as {{ type_amount() }}) as {{ amount }}10000,
  {%- endfor %}
  cast(per_day.spend10000 + per_day.gift_used_or_expired10000 as {{ type_amount() }})
    as burn10000,
  {%- for kind in ['highest', 'sustained', 'lasting'] %}
  cast(per_day.{{ kind }}_hourly_burn10000 as {{ type_amount() }}) as {{ kind }}_hourly_burn10000,
  {%- endfor %}
  per_day.closing_snapshot_at
from days
left join per_day
  on
    days.account = per_day.account
    and days.product = per_day.product
    and coalesce(days.series_currency, '') = coalesce(per_day.series_currency, '')
    and days.day = per_day.day
left join closing
  on
    per_day.account = closing.account
    and per_day.closing_snapshot_at = closing.snapshot_at
