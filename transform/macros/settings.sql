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

{% macro text_literal(text) -%}
  '{{ (text | string).replace("'", "''") }}'
{%- endmacro %}

{% macro text_list(texts) -%}
  {% for text in texts %}{{ text_literal(text) }}{{ ', ' if not loop.last }}{% endfor %}
{%- endmacro %}

{#- The threshold `name` of each account, in days. -#}
{% macro threshold(name) -%}
  {%- set own = {} -%}
  {%- for account, thresholds in var('account_thresholds').items() if name in thresholds -%}
    {%- do own.update({account: thresholds[name]}) -%}
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
