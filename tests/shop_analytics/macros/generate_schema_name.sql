{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ ['shop', custom_schema_name] | select | join('__') }}
{%- endmacro %}
