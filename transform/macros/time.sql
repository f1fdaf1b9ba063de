{#- Time: all of it is UTC, in columns without a zone. -#}

{#- The time that the models speak of, as a Python datetime. -#}
{% macro as_of_datetime() %}
  {%- if var('as_of') -%}
    {%- set moment = modules.datetime.datetime.fromisoformat(
      (var('as_of') | string).replace('Z', '+00:00')
    ) -%}
    {%- if moment.tzinfo -%}
      {%- set moment = moment.astimezone(modules.pytz.utc) -%}
    {%- endif -%}
  {%- else -%}
    {%- set moment = run_started_at.astimezone(modules.pytz.utc) -%}
  {%- endif -%}
  {{ return(moment.replace(tzinfo=none)) }}
{% endmacro %}

{% macro timestamp_literal(moment) -%}
  cast('{{ moment.strftime('%Y-%m-%d %H:%M:%S.%f') }}' as {{ dbt.type_timestamp() }})
{%- endmacro %}

{% macro date_literal(moment) -%}
  cast('{{ moment.strftime('%Y-%m-%d') }}' as date)
{%- endmacro %}

{% macro as_of() -%}
  {{ timestamp_literal(as_of_datetime()) }}
{%- endmacro %}

{#- The UTC day of `as_of`, moved by a number of days. -#}
{% macro as_of_day(move=0) -%}
  {{ date_literal(as_of_datetime() + modules.datetime.timedelta(days=move)) }}
{%- endmacro %}

{#- Whole seconds from one timestamp to a later one. -#}
{% macro seconds_between(earlier, later) -%}
  {{ adapter.dispatch('seconds_between', 'tap_balance')(earlier, later) }}
{%- endmacro %}

{#- Its datediff in seconds counts the seconds' ends between the two, not the time. -#}
{% macro snowflake__seconds_between(earlier, later) -%}
  cast(floor(datediff('microsecond', {{ earlier }}, {{ later }}) / 1000000) as integer)
{%- endmacro %}

{% macro postgres__seconds_between(earlier, later) -%}
  cast(floor(extract(epoch from {{ later }} - {{ earlier }})) as bigint)
{%- endmacro %}

{#- A date, a number of days later. -#}
{% macro days_after(day, days) -%}
  {{ adapter.dispatch('days_after', 'tap_balance')(day, days) }}
{%- endmacro %}

{% macro snowflake__days_after(day, days) -%}
  cast(dateadd('day', {{ days }}, {{ day }}) as date)
{%- endmacro %}

{% macro postgres__days_after(day, days) -%}
  ({{ day }} + cast({{ days }} as integer))
{%- endmacro %}

{#- The day that a snapshot closes. One at midnight sharp ends the day before. -#}
{% macro day_closed_by(snapshot_at) -%}
  cast({{ dbt.dateadd('second', -1, snapshot_at) }} as date)
{%- endmacro %}

{#- The rows of a CTE, each repeated for every `day` from one date to another, both included: a table
    expression. -#}
{% macro each_day(relation, first_day, last_day) -%}
  ({{ adapter.dispatch('each_day', 'tap_balance')(relation, first_day, last_day) }})
{%- endmacro %}

{% macro postgres__each_day(relation, first_day, last_day) -%}
  select {{ relation }}.*, {{ first_day }} + later as day
  from {{ relation }}
  cross join lateral generate_series(0, {{ last_day }} - {{ first_day }}) as later
{%- endmacro %}

{% macro snowflake__each_day(relation, first_day, last_day) -%}
  select {{ relation }}.*, cast(dateadd('day', later.index, {{ first_day }}) as date) as day
  from
    {{ relation }},
    lateral flatten(
      input => array_generate_range(0, datediff('day', {{ first_day }}, {{ last_day }}) + 1)
    ) as later
{%- endmacro %}

{#- Whether snapshots are missing between two: more than one and a half intervals have passed. -#}
{% macro is_gap(previous_snapshot_at, snapshot_at) -%}
  2 * {{ seconds_between(previous_snapshot_at, snapshot_at) }}
  > 3 * {{ settings()['snapshot_interval_seconds'] }}
{%- endmacro %}

{#- What was burned between two snapshots, per hour, rounded down. -#}
{% macro hourly(burn10000, previous_snapshot_at, snapshot_at) -%}
  {{ divided_down(
    '(' ~ burn10000 ~ ') * 3600', 'nullif(' ~ seconds_between(previous_snapshot_at, snapshot_at) ~ ', 0)'
  ) }}
{%- endmacro %}

{#- Whole days from one date to a later one. -#}
{% macro days_between(earlier, later) -%}
  {{ adapter.dispatch('days_between', 'tap_balance')(earlier, later) }}
{%- endmacro %}

{% macro postgres__days_between(earlier, later) -%}
  ({{ later }} - {{ earlier }})
{%- endmacro %}

{% macro snowflake__days_between(earlier, later) -%}
  datediff('day', {{ earlier }}, {{ later }})
{%- endmacro %}
