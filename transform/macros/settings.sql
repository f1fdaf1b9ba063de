{#- Variables, as SQL. -#}

{#- Seconds between two snapshots. The schedule's own word for it, DBT_SNAPSHOT_INTERVAL_SECONDS in
    the environment, wins over the variable: the Airflow DAG sets it. -#}
{% macro interval_seconds() -%}
  {{ env_var('DBT_SNAPSHOT_INTERVAL_SECONDS', '') or var('snapshot_interval_seconds') }}
{%- endmacro %}

{#- Seconds after which a snapshot is too old to go by. -#}
{% macro stale_after_seconds() -%}
  {{ var('stale_after_seconds') or 3 * (interval_seconds() | int) }}
{%- endmacro %}

{#- In Snowflake's literals a backslash begins an escape. -#}
{% macro text_literal(text) -%}
  {%- set text = (text | string).replace("'", "''") -%}
  '{{ text.replace('\\', '\\\\') if target.type == 'snowflake' else text }}'
{%- endmacro %}

{% macro text_list(texts) -%}
  {% for text in texts %}{{ text_literal(text) }}{{ ', ' if not loop.last }}{% endfor %}
{%- endmacro %}

{#- The threshold `name` of each account, in days. -#}
{% macro threshold(name) -%}
  {%- set known = ['critical_days', 'low_days'] -%}
  {%- set own = {} -%}
  {%- for account, thresholds in var('account_thresholds').items() -%}
    {%- for key in thresholds if key not in known -%}
      {%- do exceptions.raise_compiler_error(
        'account_thresholds of ' ~ account ~ ': there is no ' ~ key ~ ', only '
        ~ known | join(' and ')
      ) -%}
    {%- endfor -%}
    {%- if name in thresholds -%}
      {%- do own.update({account: thresholds[name]}) -%}
    {%- endif -%}
  {%- endfor -%}
  cast(
    {%- if own %}
    case account
      {%- for account, days in own.items() %}
      when {{ text_literal(account) }} then {{ days }}
      {%- endfor %}
      else {{ var(name) }}
    end
    {%- else %}
    {{ var(name) }}
    {%- endif %} as numeric(9, 2)
  )
{%- endmacro %}
