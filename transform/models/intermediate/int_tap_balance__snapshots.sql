{#- One row per snapshot, beside the one before it in the same product and currency. -#}
{{
  config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['account', 'snapshot_at'],
    on_schema_change='append_new_columns',
    indexes=[
      {'columns': ['snapshot_at']},
      {'columns': ['account', 'snapshot_at'], 'unique': true},
    ],
    post_hook='{{ analyze_once() }}',
  )
}}
{%- do refuse_old_tables() %}
{%- set since = rebuilt_since('snapshot_at') if is_incremental() %}
{%- do refuse_another_source() if is_incremental() %}
{%- set columns %}
  account, product, currency, snapshot_at, observed_at, balance10000, gift_balance10000,
  total_balance10000
{%- endset %}
{%- set of_product = 'partition by account, product' %}

with
{%- if not since %}

{#- Nearly all accounts have one product and one currency, which saves them a sort. #}
changing_accounts as (
  select account
  from {{ ref('stg_tap_balance__balance') }}
  where snapshot_at <= {{ as_of() }}
  group by account
  having
    min(product) <> max(product)
    or min(currency) <> max(currency)
    or count(currency) not in (0, count(*))
),
{%- endif %}

changing_attempts as (
  select
    {{ columns }},
    lead(snapshot_at) over (partition by account order by snapshot_at, observed_at) as next_at
  from {{ ref('stg_tap_balance__balance') }}
  where
    snapshot_at <= {{ as_of() }}
    {%- if since %}
    and snapshot_at >= {{ timestamp_literal(since) }}
    {%- else %}
    and account in (select account from changing_accounts)
    {%- endif %}
),

-- A target that appends keeps every attempt of an interval; the one observed last counts.
changing_snapshots as (
  select {{ columns }}, true as is_new
  from changing_attempts
  where next_at is null or next_at > snapshot_at
  {%- if since %}
  union all
  select {{ columns }}, false as is_new
  from ({{ snapshots_before(timestamp_literal(since), columns) }}) as earlier  -- noqa: AL05
  {%- endif %}
),

-- A currency holds until another is known ...
counted as (
  select
    changing_snapshots.*,
    count(currency) over ({{ of_product }} order by snapshot_at) as changes_of_currency
  from changing_snapshots
),

labelled as (
  select
    account,
    product,
    max(currency) over ({{ of_product }}, changes_of_currency) as currency,
    snapshot_at,
    observed_at,
    balance10000,
    gift_balance10000,
    total_balance10000,
    is_new
  from counted
),

-- ... and the first that is known is that of the time before it, too.
changing as (
  select
    labelled.*,
    product || ' ' || coalesce(
      currency,
      first_value(currency) over (
        {{ of_product }}
        order by case when currency is null then 1 else 0 end, snapshot_at
        rows between unbounded preceding and unbounded following
      ),
      ''
    ) as series
  from labelled
),

all_attempts as (
  select {{ columns }}, is_new, series from changing
  {%- if not since %}
  union all
  select {{ columns }}, true as is_new, '' as series
  from {{ ref('stg_tap_balance__balance') }}
  where
    snapshot_at <= {{ as_of() }}
    and account not in (select account from changing_accounts)
  {%- endif %}
),

attempts as (
  select
    all_attempts.*,
    lead(snapshot_at) over (
      partition by account, series order by snapshot_at, observed_at
    ) as next_at
  from all_attempts
),

compared as (
  select
    attempts.*,
    {%- for column in ['snapshot_at', 'balance10000', 'gift_balance10000'] %}
    lag({{ column }}) over (partition by account, series order by snapshot_at)
      as previous_{{ column }}{{ ',' if not loop.last }}
    {%- endfor %}
  from attempts
  where next_at is null or next_at > snapshot_at
)

select
  account,
  product,
  currency,
  previous_snapshot_at,
  snapshot_at,
  observed_at,
  previous_balance10000,
  balance10000,
  previous_gift_balance10000,
  gift_balance10000,
  total_balance10000,
  cast({{ source_key() }} as integer) as source_key
from compared
where is_new
