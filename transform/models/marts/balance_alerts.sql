{#- One row per account and reason: what a person has to know, since when, and whether it is new.

    The table is rebuilt from its own previous rows, also with --full-refresh: only they say since when
    an alert has been going on, and whether anybody can have seen it. -#}
{{ config(materialized='table') }}
{%- set settings = settings() %}
{%- set reasons = {
  'empty': {
    'holds': "status = 'empty'", 'since': 'coalesce(empty_since, snapshot_at)', 'severity': 'error',
    'urgency': 3,
  },
  'critical': {
    'holds': "status = 'critical'", 'since': 'coalesce(critical_since, snapshot_at)',
    'severity': 'error', 'urgency': 2,
  },
  'low': {
    'holds': "status = 'low'", 'since': 'coalesce(low_since, snapshot_at)', 'severity': 'warn',
    'urgency': 1,
  },
  'surge': {
    'holds': "surge_hours_left is not null and complete_days >= 3 and status <> 'stale'",
    'since': 'snapshot_at', 'severity': 'error', 'urgency': 0,
  },
  'stale': {
    'holds': "status = 'stale'",
    'since': dbt.dateadd('second', settings['stale_after_seconds'], 'snapshot_at'),
    'severity': 'error', 'urgency': 0,
  },
  'unjudged': {
    'holds': "status = 'accumulating' and first_day < " ~ as_of_day(-28),
    'since': 'cast(' ~ days_after('first_day', 29) ~ ' as ' ~ dbt.type_timestamp() ~ ')',
    'severity': 'warn', 'urgency': 0,
  },
} %}
{%- set columns %}
  account, product, currency, reason, severity, since, first_seen_at, ended_at, message
{%- endset %}

with runway as (
  select * from {{ ref('balance_runway') }}
),

levels as (
  select * from {{ ref('int_tap_balance__levels') }}
),

latest as (
  select
    account,
    first_day
  from {{ ref('int_tap_balance__latest') }}
),

accounts as (
  select
    runway.*,
    latest.first_day,
    levels.empty_since,
    levels.critical_since,
    levels.low_since,
    case runway.status
      when 'empty' then 3
      when 'critical' then 2
      when 'low' then 1
      else 0
    end as urgency,
    {{ days_left_in_words() }} as words
  from runway
  inner join levels on runway.account = levels.account
  inner join latest on runway.account = latest.account
),

found as (
  {%- for reason, rule in reasons.items() %}
  select
    account,
    product,
    currency,
    '{{ reason }}' as reason,
    '{{ rule.severity }}' as severity,
    {{ rule.since }} as since,
    'account ' || account || {% if reason == 'empty' -%}
    ' is empty: ' || {{ money('total_balance') }} || ' at ' || {{ clock('snapshot_at') }}
    {%- elif reason == 'critical' %} ' is critical: ' || {{ money('total_balance') }}
    || case when balance <= 0 then ' of gifts, which can expire' else '' end
    || case
      when total_balance < min_balance
        then ' is below its min_balance of ' || {{ money('min_balance') }}
      else ''
    end || case
      when complete_days < 3
        then coalesce(
          ', empty ' || {{ hours_in_words('surge_hours_left') }} || ' at the present pace', ''
        )
      when burn_per_day10000 = 0 then ', too little to send a message; nothing was sent in 28 days'
      else ', ' || words
    end
    {%- elif reason == 'low' %} ' is low: ' || {{ money('total_balance') }} || ', ' || words
    {%- elif reason == 'surge' %} ' burns far more than usual: ' || {{ money('total_balance') }}
    || ' will be gone ' || {{ hours_in_words('surge_hours_left') }} || ' at the present pace'
    {%- elif reason == 'stale' %} ' is stale: no snapshot since ' || {{ clock('snapshot_at') }}
    {%- else %} ' cannot be judged: only ' || cast(complete_days as {{ dbt.type_string() }})
    || ' of the last 28 days are complete, because snapshots around midnight are missing'
    {%- endif %} as message
  from accounts
  where {{ rule.holds }}
  union all
  {%- endfor %}
  select
    cast(null as {{ dbt.type_string() }}) as account,
    cast(null as {{ dbt.type_string() }}) as product,
    cast(null as {{ dbt.type_string() }}) as currency,
    'no_accounts' as reason,
    'error' as severity,
    {{ interval_start() }} as since,
    'no account has a snapshot: nothing has been loaded, or all accounts are retired' as message
  where not exists (select 1 from runway){{ ' and 1 = 0' if flags.EMPTY }}
),

{%- if has_previous_alerts() %}

previous as (
  select
    account, product, currency, reason, severity, since, first_seen_at, message,
    case when ended_at <= {{ as_of() }} then ended_at end as ended_at
  from {{ this.render() }}
  where first_seen_at <= {{ as_of() }}
),
{%- else %}

previous as (
  select
    account, product, currency, reason, severity, since, since as first_seen_at, message,
    since as ended_at
  from found
  where 1 = 0
),
{%- endif %}

open_alerts as (
  select
    found.account,
    found.product,
    found.currency,
    found.reason,
    found.severity,
    coalesce(previous.since, found.since) as since,
    coalesce(previous.first_seen_at, {{ as_of() }}) as first_seen_at,
    cast(null as {{ dbt.type_timestamp() }}) as ended_at,
    found.message
  from found
  left join previous
    on
      found.reason = previous.reason
      and coalesce(found.account, '') = coalesce(previous.account, '')
      and previous.ended_at is null
),

others as (
  select
    previous.*,
    accounts.account is not null as is_known,
    accounts.status,
    accounts.urgency,
    accounts.snapshot_at,
    accounts.words,
    case previous.reason
      {%- for reason, rule in reasons.items() if rule.urgency %}
      when '{{ reason }}' then {{ rule.urgency }}
      {%- endfor %}
    end as previous_urgency
  from previous
  left join accounts on previous.account = accounts.account
  left join found
    on
      previous.reason = found.reason
      and coalesce(previous.account, '') = coalesce(found.account, '')
  where found.reason is null
),

other_alerts as (
  select
    account,
    product,
    currency,
    reason,
    severity,
    since,
    first_seen_at,
    case
      when ended_at is not null{{ ' or 1 = 1' if flags.EMPTY }} then ended_at
      -- Of a stale account, nothing is known that would end an alert.
      when status = 'stale' then null
      else greatest(since, coalesce(snapshot_at, {{ interval_start() }}))
    end as ended_at,
    case
      when ended_at is not null or status = 'stale'{{ ' or 1 = 1' if flags.EMPTY }} then message
      when reason = 'no_accounts' then 'there are accounts again'
      when not is_known then 'account ' || account || ' is not ' || reason || ' any more: it is retired'
      when previous_urgency < urgency
        then 'account ' || account || ' is not ' || reason || ' any more: it is ' || status
      when reason = 'surge' then 'account ' || account || ' burns no more than usual again'
      when reason = 'stale' then 'account ' || account || ' has snapshots again; it is ' || status
      when reason = 'unjudged' then 'account ' || account || ' is judged again: it is ' || status
      else 'account ' || account || ' is not ' || reason || ' any more: ' || words
    end as message
  from others
),

alerts as (
  select {{ columns }} from open_alerts
  union all
  select {{ columns }} from other_alerts
  where
    ended_at is null
    or ended_at > {{ timestamp_literal(
      as_of_datetime() - modules.datetime.timedelta(days=settings['alert_memory_days'])
    ) }}
)

select
  coalesce(account, '') || '/' || reason || '@' || {{ iso('since') }} as alert_id,
  account,
  product,
  currency,
  reason,
  severity,
  case
    when ended_at is not null then 'over'
    when first_seen_at >= {{ interval_start() }} then 'new'
    else 'ongoing'
  end as state,
  since,
  first_seen_at,
  ended_at,
  message
from alerts
