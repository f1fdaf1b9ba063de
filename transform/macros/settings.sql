{#- Variables, as SQL. -#}

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
