{#- Amounts: whole numbers, times 10000. -#}

{#- Wide enough for products of amounts and millionths; the Snowflake emulator of the tests has
    64 bits for 38 digits. -#}
{% macro type_amount() -%}
  numeric(37, 0)
{%- endmacro %}

{#- x / y for whole numbers that are not negative, rounded down. -#}
{% macro divided_down(x, y) -%}
  {{ adapter.dispatch('divided_down', 'tap_balance')(x, y) }}
{%- endmacro %}

{% macro default__divided_down(x, y) -%}
  cast((({{ x }}) - mod({{ x }}, {{ y }})) / ({{ y }}) as {{ tap_balance.type_amount() }})
{%- endmacro %}

{% macro postgres__divided_down(x, y) -%}
  div({{ x }}, {{ y }})
{%- endmacro %}

{#- The same, rounded up. -#}
{% macro divided_up(x, y) -%}
  {{ tap_balance.divided_down('(' ~ x ~ ') + (' ~ y ~ ') - 1', y) }}
{%- endmacro %}

{#- An amount as an exact decimal. -#}
{% macro decimal_of(amount10000) -%}
  cast({{ amount10000 }} * 0.0001 as numeric(38, 4))
{%- endmacro %}

{#- By how much a snapshot differs from the one before it; null where there is none. -#}
{% macro differences() -%}
  cast(balance10000 as {{ tap_balance.type_amount() }}) - previous_balance10000 as paid10000,
  cast(gift_balance10000 as {{ tap_balance.type_amount() }}) - previous_gift_balance10000 as gift10000
{%- endmacro %}

{#- What such a difference means: an amount of a paid balance that is gone was spent, and so on. -#}
{% macro movements() -%}
  case when paid10000 < 0 then -paid10000 when paid10000 >= 0 then 0 end as spend10000,
  case when paid10000 > 0 then paid10000 when paid10000 <= 0 then 0 end as top_up10000,
  case when gift10000 > 0 then gift10000 when gift10000 <= 0 then 0 end as gift_granted10000,
  case when gift10000 < 0 then -gift10000 when gift10000 >= 0 then 0 end
    as gift_used_or_expired10000
{%- endmacro %}
