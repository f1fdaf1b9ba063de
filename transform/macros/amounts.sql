{#- Amounts: integers, times 10000. They are never divided where a remainder could be lost. -#}

{#- Wide enough for the difference of any two 64-bit integers. -#}
{% macro type_amount() -%}
  numeric(38, 0)
{%- endmacro %}

{#- x / y for whole numbers that are not negative, rounded down or up, without a fraction. -#}
{% macro divided_down(x, y) -%}
  cast((({{ x }}) - mod({{ x }}, {{ y }})) / ({{ y }}) as {{ type_amount() }})
{%- endmacro %}

{% macro divided_up(x, y) -%}
  (
    {{ divided_down(x, y) }} + case when mod({{ x }}, {{ y }}) > 0 then 1 else 0 end
  )
{%- endmacro %}

{#- An amount as a decimal with its four places, for people. -#}
{% macro decimal_of(amount10000) -%}
  cast({{ amount10000 }} * 0.0001 as numeric(38, 4))
{%- endmacro %}
