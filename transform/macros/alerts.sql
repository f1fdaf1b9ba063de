{#- Alerts: when they began, and what they say. -#}

{#- Seconds since 1970 of the interval of `as_of`, as a literal of its start. -#}
{% macro interval_start() -%}
  {%- set length = tap_balance.settings()['snapshot_interval_seconds'] -%}
  {%- set epoch = modules.datetime.datetime(1970, 1, 1) -%}
  {%- set seconds = (tap_balance.as_of_datetime() - epoch).total_seconds() | int -%}
  {{ tap_balance.timestamp_literal(
    epoch + modules.datetime.timedelta(seconds=seconds - seconds % length)
  ) }}
{%- endmacro %}

{#- Whether balance_alerts has been built before. -#}
{% macro has_previous_alerts() %}
  {{ return(execute and this and load_relation(this) is not none) }}
{% endmacro %}

{#- A time as ISO 8601. -#}
{% macro iso(moment) -%}
  replace(left(cast({{ moment }} as {{ dbt.type_string() }}), 19), ' ', 'T') || 'Z'
{%- endmacro %}

{#- An amount in currency, with as many decimals as the currency has; four where fewer would show
    nothing. -#}
{% macro money(amount) -%}
  case
    when currency in (
      'BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'VND', 'VUV',
      'XAF', 'XOF', 'XPF'
    )
      then cast(cast(round({{ amount }}, 0) as numeric(37, 0)) as {{ dbt.type_string() }})
    when currency in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND')
      then cast(cast(round({{ amount }}, 3) as numeric(38, 3)) as {{ dbt.type_string() }})
    when {{ amount }} <> 0 and abs({{ amount }}) < 0.01
      then cast(cast({{ amount }} as numeric(38, 4)) as {{ dbt.type_string() }})
    else cast(cast(round({{ amount }}, 2) as numeric(38, 2)) as {{ dbt.type_string() }})
  end || coalesce(' ' || currency, '')
{%- endmacro %}

{#- "14:20 UTC today", "... tomorrow" or "... on 2026-11-25". -#}
{% macro clock(moment) -%}
  substring(cast({{ moment }} as {{ dbt.type_string() }}), 12, 5) || ' UTC '
  || case cast({{ moment }} as date)
    when {{ tap_balance.as_of_day() }} then 'today'
    when {{ tap_balance.as_of_day(1) }} then 'tomorrow'
    else 'on ' || cast(cast({{ moment }} as date) as {{ dbt.type_string() }})
  end
{%- endmacro %}

{#- "about 2 days left (1.8-2.4) at 9.60 USD/day; runs out on 2026-11-25". -#}
{% macro days_left_in_words() -%}
  case
    when days_left is null then 'no end in sight'
    else 'about ' || replace(cast(days_left as {{ dbt.type_string() }}), '.0', '')
      || case when days_left = 1 then ' day' else ' days' end
      || ' left (' || cast(days_left_low as {{ dbt.type_string() }})
      || coalesce('-' || cast(days_left_high as {{ dbt.type_string() }}), ' or more') || ')'
      || ' at ' || {{ tap_balance.money('burn_per_day') }} || '/day; runs out '
      || case
        when runs_out_at is not null then 'at ' || {{ tap_balance.clock('runs_out_at') }}
        else 'on ' || cast(runs_out_on as {{ dbt.type_string() }})
      end
  end
{%- endmacro %}

{#- "in about 3.5 hours". -#}
{% macro hours_in_words(hours) -%}
  case
    when {{ hours }} < 0.1 then 'in a few minutes'
    when {{ hours }} < 1
      then 'in about ' || cast(cast({{ hours }} * 60 as integer) as {{ dbt.type_string() }}) || ' minutes'
    else 'in about ' || replace(cast({{ hours }} as {{ dbt.type_string() }}), '.0', '')
      || case when {{ hours }} = 1 then ' hour' else ' hours' end
  end
{%- endmacro %}

{#- Print the alerts of one severity as a test of them runs: a line for each. -#}
{% macro print_alerts(alerts, severity) -%}
  {%- if execute and flags.WHICH == 'test' -%}
    {%- set found = run_query(
      "select message from " ~ alerts.render() ~ " where severity = '" ~ severity
      ~ "' and state <> 'over' order by account, reason"
    ) -%}
    {%- for row in found.rows -%}
      {#- One line each, whatever is in an account's name. -#}
      {%- do log(
        'ALERT (' ~ ('fail' if severity == 'error' else 'warn') ~ ') ' ~ row[0].split() | join(' '),
        info=true
      ) -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro %}

{#- The alerts of one severity, for `dbt test`. In `dbt build` there are none: the state of an account
    must not fail a build. -#}
{% macro alerts_of(severity) -%}
  {%- do tap_balance.print_alerts(ref('balance_alerts'), severity) -%}
  with alerts as (
    select * from {{ ref('balance_alerts') }}
  )

  select alert_id, account, reason, state, since, message
  from alerts
  where
    severity = '{{ severity }}' and state <> 'over'
    {%- if flags.WHICH == 'build' %}
    and 1 = 0
    {%- endif %}
{%- endmacro %}
