{#- Alerts: tests that fail with the accounts and the numbers. -#}

{#- The accounts with one of these statuses; in `message`, what a person has to know, with `remark`
    (SQL text) at its end. -#}
{% macro alert(statuses, remark="''") -%}
select
  account,
  status,
  product,
  currency,
  total_balance10000,
  burn_per_day10000,
  days_left,
  days_left_low,
  days_left_high,
  runs_out_on,
  snapshot_at,
  age_seconds,
  'account ' || account || ' is ' || status || ': '
  || cast({{ decimal_of('total_balance10000') }} as {{ dbt.type_string() }})
  || coalesce(' ' || currency, '') || ' at '
  || cast(snapshot_at as {{ dbt.type_string() }}) || ' UTC'
  || case
    when total_balance10000 > 0 and days_left is not null
      then ', ' || cast(days_left as {{ dbt.type_string() }}) || ' days left ('
    || cast(days_left_low as {{ dbt.type_string() }}) || ' to '
    || coalesce(cast(days_left_high as {{ dbt.type_string() }}), 'many') || ') at '
    || cast({{ decimal_of('burn_per_day10000') }} as {{ dbt.type_string() }})
    || ' a day, until ' || cast(runs_out_on as {{ dbt.type_string() }})
    else ''
  end || {{ remark }} as message
from {{ ref('balance_runway') }}
where status in ({{ text_list(statuses) }})
{%- endmacro %}

{#- After a run: print the message of each account that an alert has found. -#}
{% macro tell_alerts(results) -%}
  {%- if execute -%}
    {%- for result in results if 'alert' in result.node.tags and result.failures -%}
      {%- set found = run_query(
        'select message from ' ~ result.node.relation_name ~ ' order by days_left, account'
      ) -%}
      {%- for row in found.rows -%}
        {#- One line each, whatever is in an account's name. -#}
        {%- do log('ALERT (' ~ result.status ~ ') ' ~ row[0].split() | join(' '), info=true) -%}
      {%- endfor -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro %}
