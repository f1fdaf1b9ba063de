{#- What an incremental run reads again. -#}

{#- The time from which this model's rows are rebuilt: its newest row's, less the lookback. It is
    queried before the statement is written, because a planner that sees a literal uses an index. -#}
{% macro rebuilt_since(column) %}
  {%- if not execute -%}
    {{ return(none) }}
  {%- endif -%}
  {%- set newest = run_query(
    'select max(' ~ column ~ ') as newest from ' ~ this.render()
  ).columns[0].values()[0] -%}
  {%- if newest is none -%}
    {{ return(modules.datetime.datetime(1970, 1, 1)) }}
  {%- endif -%}
  {%- if newest > tap_balance.as_of_datetime() -%}
    {%- do tap_balance.refuse(
      'as_of is earlier than what has been built; add --full-refresh: ' ~ this.render()
      ~ ' ends at ' ~ newest ~ ', as_of is ' ~ tap_balance.as_of_datetime()
    ) -%}
  {%- endif -%}
  {{ return(newest - modules.datetime.timedelta(hours=tap_balance.settings()['lookback_hours'])) }}
{% endmacro %}

{#- The first day whose rows this model builds, as a Python date: the first that is replayed or, in an
    incremental run, the first whose rows can have changed, but today in any case. `delay` are the
    days from a change of the data to the first row that it changes. -#}
{% macro first_judged_day(is_incremental, delay, settings_key=none) %}
  {%- if not execute -%}
    {{ return(tap_balance.as_of_datetime().date()) }}
  {%- endif -%}
  {%- set today = tap_balance.as_of_datetime().date() -%}
  {%- set first = today - modules.datetime.timedelta(days=tap_balance.settings()['memory_days']) -%}
  {%- if not is_incremental -%}
    {{ return(first) }}
  {%- endif -%}
  {#- All of them also where fewer were replayed before, or with other settings. -#}
  {%- set first_literal = tap_balance.date_literal(first) -%}
  {%- set is_known = run_query(
    'select 1 from ' ~ this.render() ~ ' where day >= ' ~ first_literal
    ~ ' having min(day) = ' ~ first_literal
    ~ (" and min(settings_key) = '" ~ settings_key ~ "' and max(settings_key) = '" ~ settings_key ~ "'"
      if settings_key else '')
  ).rows | length -%}
  {%- if not is_known -%}
    {{ return(first) }}
  {%- endif -%}
  {#- A snapshot at midnight sharp belongs to the day before. -#}
  {%- set since = tap_balance.rebuilt_since('built_to') - modules.datetime.timedelta(seconds=delay) -%}
  {%- set changed = since.date() + modules.datetime.timedelta(days=delay) -%}
  {{ return([first, [changed, today] | min] | max) }}
{% endmacro %}

{#- An error where the rows of this model come from another table than the one that is read now. -#}
{% macro refuse_another_source() %}
  {%- if execute -%}
    {%- set other = run_query(
      'select source_key from ' ~ this.render() ~ ' where snapshot_at = (select max(snapshot_at) from '
      ~ this.render() ~ ') and source_key <> ' ~ tap_balance.source_key() ~ ' limit 1'
    ) -%}
    {%- if other.rows | length -%}
      {%- do tap_balance.refuse(
        'the source is another table than the one that ' ~ this.render()
        ~ ' was built from; add --full-refresh to rebuild it from '
        ~ source('tap_balance', 'balance').include(database=true).render()
      ) -%}
    {%- endif -%}
  {%- endif -%}
{% endmacro %}

{#- For each account and product of the newest snapshots, the last row of this model before `moment`,
    and the last one in each of their currencies. -#}
{% macro snapshots_before(moment, columns) -%}
  {{ adapter.dispatch('snapshots_before', 'tap_balance')(moment, columns) }}
{%- endmacro %}

{#- One index look-up each, where a window would read the whole history. -#}
{% macro postgres__snapshots_before(moment, columns) -%}
  select distinct earlier.*
  from (
    select account, product, cast(null as text) as currency from changing_attempts
    union
    select account, product, currency from changing_attempts
  ) as known
  cross join lateral (
    select {{ columns }}
    from {{ this.render() }} as history
    where
      history.account = known.account
      and history.product = known.product
      and (known.currency is null or history.currency = known.currency)
      and history.snapshot_at < {{ moment }}
    order by history.snapshot_at desc
    limit 1
  ) as earlier
{%- endmacro %}

{% macro default__snapshots_before(moment, columns) -%}
  select {{ columns }}
  from {{ this.render() }}
  where snapshot_at < {{ moment }} and account in (select account from changing_attempts)
  qualify
    row_number() over (partition by account, product order by snapshot_at desc) = 1
    or row_number() over (partition by account, product, currency order by snapshot_at desc) = 1
{%- endmacro %}

{#- Postgres: a new table has no statistics until autovacuum analyzes it, and without them the next
    model takes minutes instead of a second. -#}
{% macro analyze_once() -%}
  {%- if target.type == 'postgres' -%}
    do $$
    begin
      if not exists (
        select from pg_stats
        where schemaname = {{ tap_balance.text_literal(this.schema) }}
          and tablename = {{ tap_balance.text_literal(this.identifier) }}
      ) then
        analyze {{ this.render() }};
      end if;
    end
    $$
  {%- endif -%}
{%- endmacro %}

{#- Postgres: of a join of joins it may expect one row and get thousands, and a loop within a loop
    then takes minutes instead of a second. Until the end of the transaction. -#}
{% macro avoid_nested_loops() -%}
  {{ 'set local enable_nestloop = off' if target.type == 'postgres' }}
{%- endmacro %}

{#- The table balance_changes of version 0.1, or none. -#}
{% macro old_changes(database, schema) %}
  {%- set found = adapter.get_relation(database, schema, 'balance_changes') -%}
  {{ return(found if found and found.is_table else none) }}
{% endmacro %}

{#- An error where a view is about to replace a table of version 0.1, with all its history. -#}
{% macro refuse_old_tables() %}
  {%- if execute and this and not load_relation(this) -%}
    {%- set old = tap_balance.old_changes(this.database, this.schema) -%}
    {%- if old -%}
      {%- do tap_balance.refuse(
        old.render() ~ ' was built by an earlier version; run `dbt run-operation upgrade_tables`'
      ) -%}
    {%- endif -%}
  {%- endif -%}
{% endmacro %}

{#- Keep the history of version 0.1: `dbt run-operation upgrade_tables`, then build as usual. -#}
{% macro upgrade_tables() %}
  {%- set node = graph.nodes['model.tap_balance.int_tap_balance__snapshots'] -%}
  {%- set old = tap_balance.old_changes(node.database, node.schema) -%}
  {%- set new = api.Relation.create(
    database=node.database, schema=node.schema, identifier=node.alias, type='table'
  ) -%}
  {%- if not old -%}
    {%- do log('nothing to upgrade in ' ~ node.schema, info=true) -%}
  {%- elif load_relation(new) -%}
    {%- do tap_balance.refuse(new.render() ~ ' exists already; drop it to upgrade ' ~ old.render()) -%}
  {%- else -%}
    {%- for column in [
      'elapsed_seconds', 'is_gap', 'spend10000', 'top_up10000', 'gift_granted10000',
      'gift_used_or_expired10000'
    ] -%}
      {%- do run_query('alter table ' ~ old.render() ~ ' drop column ' ~ column) -%}
    {%- endfor -%}
    {%- do run_query(
      'alter table ' ~ old.render() ~ ' add column source_key integer default ' ~ tap_balance.source_key()
    ) -%}
    {%- do adapter.rename_relation(old, new) -%}
    {%- set daily = adapter.get_relation(node.database, node.schema, 'balance_daily') -%}
    {%- if daily and daily.is_table -%}
      {%- do adapter.drop_relation(daily) -%}
    {%- endif -%}
    {%- do run_query('commit') -%}
    {%- do log(old.render() ~ ' is now ' ~ new.render() ~ '; the rest is rebuilt by dbt build', info=true) -%}
  {%- endif -%}
{% endmacro %}

{#- Postgres writes the expressions of a CTE out wherever they are used, unless MATERIALIZED prevents it. -#}
{% macro materialized() -%}
  {{ 'materialized' if target.type == 'postgres' }}
{%- endmacro %}

{#- A time before what an incremental run rebuilds: whole days, and the lookback. -#}
{% macro rebuilt_recently() -%}
  {{ timestamp_literal(
    as_of_datetime() - modules.datetime.timedelta(hours=24 + settings()['lookback_hours'])
  ) }}
{%- endmacro %}
