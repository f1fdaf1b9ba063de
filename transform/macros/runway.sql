{#- Days that an amount lasts at so much a day: numeric(9, 1), rounded down, and null where no end
    is in sight. As seconds they fit an integer of 32 bits, which Postgres adds to a time. -#}
{% macro days_of(amount10000, per_day10000) -%}
  case
    when {{ amount10000 }} <= 0 then cast(0 as numeric(9, 1))
    when {{ amount10000 }} <= {{ per_day10000 }} * {{ [var('horizon_days') | int, 24855] | min }}
      then cast(
        {{ divided_down(amount10000 ~ ' * 10', 'nullif(' ~ per_day10000 ~ ', 0)') }} * 0.1
        as numeric(9, 1)
      )
  end
{%- endmacro %}
