{#- What an incremental run reads again. -#}

{#- The time from which on this model's rows are made anew: its newest row's, less the lookback.
    It is asked for before the query is written, because a planner that sees a literal uses an index. -#}
{% macro made_anew_since(column) %}
  {%- if not execute -%}
    {{ return(none) }}
  {%- endif -%}
  {%- set newest = run_query('select max(' ~ column ~ ') from ' ~ this).columns[0].values()[0] -%}
  {%- if newest is none -%}
    {{ return(modules.datetime.datetime(1970, 1, 1)) }}
  {%- endif -%}
  {%- if newest > as_of_datetime() -%}
    {%- do exceptions.raise_compiler_error(
      'as_of lies before what is built; add --full-refresh: ' ~ this ~ ' goes to ' ~ newest
      ~ ', as_of is ' ~ as_of_datetime()
    ) -%}
  {%- endif -%}
  {{ return(newest - modules.datetime.timedelta(hours=var('lookback_hours'))) }}
{% endmacro %}

{#- Postgres: the loaded table has an index on its key alone, so that "the newest hour" would mean
    reading all of it. A user who may not add one loses time, nothing else. To create one keeps
    loaders out, even where `if not exists` then finds it: so it is looked for first, and added in a
    transaction of its own. -#}
{% macro index_source() -%}
  {%- if target.type == 'postgres' and var('index_source') -%}
    {%- set table = source('tap_balance', 'balance').include(database=false) -%}
    do $$
    begin
      if not exists (
        select
        from pg_index
        inner join pg_attribute
          on attrelid = indrelid and attnum = indkey[0] and attname = 'snapshot_at'
        where indrelid = to_regclass({{ text_literal(table) }}) and indisvalid and indpred is null
      ) then
        create index if not exists balance_snapshot_at on {{ table }} (snapshot_at);
      end if;
    exception
      when insufficient_privilege or wrong_object_type then
        raise notice 'no index on the snapshots'' time: %', sqlerrm;
    end
    $$
  {%- endif -%}
{%- endmacro %}

{#- The last row of this model before `moment`, for each series (of account, product and currency)
    of the CTE `snapshots`. -#}
{% macro last_change_before(moment, columns, series) -%}
  {{ adapter.dispatch('last_change_before', 'tap_balance')(moment, columns, series) }}
{%- endmacro %}

{#- One look into the index per series, where a window would read the whole history. -#}
{% macro postgres__last_change_before(moment, columns, series) -%}
  select before.*
  from (select distinct account, product, currency from snapshots) as known
  cross join lateral (
    select {{ columns }}
    from {{ this }} as history
    where
      history.account = known.account
      and history.product = known.product
      and coalesce(history.currency, '') = coalesce(known.currency, '')
      and history.snapshot_at < {{ moment }}
    order by history.snapshot_at desc
    limit 1
  ) as before
{%- endmacro %}

{% macro default__last_change_before(moment, columns, series) -%}
  select {{ columns }}
  from {{ this }}
  where snapshot_at < {{ moment }} and account in (select account from snapshots)
  qualify row_number() over (partition by {{ series }} order by snapshot_at desc) = 1
{%- endmacro %}

{#- Postgres: a table just made has no statistics until autovacuum comes by, and without them the
    next model takes minutes in place of a second. -#}
{% macro analyze_once() -%}
  {%- if target.type == 'postgres' -%}
    do $$
    begin
      if not exists (
        select from pg_stats
        where schemaname = {{ text_literal(this.schema) }}
          and tablename = {{ text_literal(this.identifier) }}
      ) then
        analyze {{ this }};
      end if;
    end
    $$
  {%- else -%}
    select 1
  {%- endif -%}
{%- endmacro %}

{#- Postgres: the incremental strategy `replace`, which is dbt's delete+insert with a condition that
    uses the index; dbt's own makes the planner read the whole table. -#}
{% macro get_incremental_replace_sql(arg_dict) -%}
  {%- set key = arg_dict['unique_key'] -%}
  {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
  delete from {{ arg_dict['target_relation'] }}
  where {{ key }} = any (array(select distinct {{ key }} from {{ arg_dict['temp_relation'] }}));

  insert into {{ arg_dict['target_relation'] }} ({{ columns }})
  select {{ columns }}
  from {{ arg_dict['temp_relation'] }}
{%- endmacro %}
