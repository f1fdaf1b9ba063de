{#- The table that the target has loaded. -#}

{#- The type of each of its columns, in lower case. -#}
{% macro source_types() %}
  {%- set types = {} -%}
  {%- if execute -%}
    {%- for column in adapter.get_columns_in_relation(source('tap_balance', 'balance')) -%}
      {%- do types.update({column.name | lower: column.data_type | lower}) -%}
    {%- endfor -%}
  {%- endif -%}
  {{ return(types) }}
{% endmacro %}

{#- A time of that table as UTC without a time zone. -#}
{% macro utc(column, types) -%}
  {{ adapter.dispatch('utc', 'tap_balance')(column, types.get(column, '')) }}
{%- endmacro %}

{% macro postgres__utc(column, type) -%}
  {%- if 'with time zone' in type -%}
    {{ column }} at time zone 'UTC'
  {%- elif type in ['text', 'character varying'] -%}
    cast({{ column }} as timestamp with time zone) at time zone 'UTC'
  {%- else -%}
    cast({{ column }} as timestamp)
  {%- endif -%}
{%- endmacro %}

{% macro snowflake__utc(column, type) -%}
  {%- if 'tz' in type and 'ntz' not in type or 'ltz' in type -%}
    cast(convert_timezone('UTC', {{ column }}) as timestamp_ntz)
  {%- else -%}
    cast({{ column }} as timestamp_ntz)
  {%- endif -%}
{%- endmacro %}

{#- A number of 31 bits for the name of that table, which each row keeps: rows of two tables must
    not be mixed. -#}
{% macro source_key() -%}
  {%- set name = [
    var('tap_balance_database') or target.database,
    (var('source_schema', none) if project_name == 'tap_balance') or var('tap_balance_schema'),
    var('tap_balance_table')
  ] | join('.') | lower -%}
  {{ local_md5(name)[:7] | int(0, 16) }}
{%- endmacro %}

{#- Create the index that an incremental run needs to read the newest snapshots only:
    `dbt run-operation index_source`. Postgres. -#}
{% macro index_source() %}
  {%- if target.type != 'postgres' -%}
    {%- do tap_balance.refuse('index_source: only Postgres has indexes') -%}
  {%- endif -%}
  {%- set table = source('tap_balance', 'balance').include(database=false).render() -%}
  {%- do run_query('create index if not exists balance_snapshot_at on ' ~ table ~ ' (snapshot_at)') -%}
  {%- do run_query('commit') -%}
  {%- do log('index balance_snapshot_at on ' ~ table ~ ' exists', info=true) -%}
{% endmacro %}
