{#- The arithmetic of the runway. -#}

{#- `term` for each of `numbers`, added up; # is the number. -#}
{% macro sum_of(numbers, term) -%}
  {% for k in numbers %}{{ term.replace('#', k | string) }}{{ ' + ' if not loop.last }}{% endfor %}
{%- endmacro %}

{#- The branches of a CASE; # is the number. -#}
{% macro case_of(numbers, branch) -%}
  {% for k in numbers %} {{ branch.replace('#', k | string) }}{% endfor %}
{%- endmacro %}

{#- What `days200` two-hundredths of a day burn from the midnight on that is `from_day` days ahead,
    in two-hundredths of ahead_k_e6: whole weeks, then from weekday to weekday. -#}
{% macro burned_from(from_day, days200) -%}
  {%- set weeks = tap_balance.divided_down(days200, 1400) -%}
  {%- for k in range(7) -%}
    ahead_{{ k }}_e6 * (200 * {{ weeks }} + least(200, greatest(0, mod({{ days200 }}, 1400)
    - {{ 200 * ((k + 7 - from_day) % 7) }}))){{ ' + ' if not loop.last }}
  {%- endfor -%}
{%- endmacro %}

{#- What a number of days burns from a moment on of which `begun` seconds of the day are over, x 10000 and
    a million; `from_0` and `from_1` are burned_from. -#}
{% macro need_e6(from_0, from_1, begun) -%}
  {{ tap_balance.divided_down(
    from_0 ~ ' * (86400 - ' ~ begun ~ ') + ' ~ from_1 ~ ' * ' ~ begun, 200 * 86400
  ) }}
{%- endmacro %}

{#- Seconds that an amount lasts from a moment on of which `begun` seconds of the day are over. -#}
{% macro seconds_left(amount10000, begun) -%}
  {%- set week = '(' ~ tap_balance.sum_of(range(7), 'ahead_#_e6') ~ ')' -%}
  {%- set goal -%}
    ({{ amount10000 }} * 86400000000 + {{ begun }} * ahead_0_e6)
  {%- endset -%}
  {%- set weeks = tap_balance.divided_down(goal, 'nullif(86400 * ' ~ week ~ ', 0)') -%}
  {%- set rest -%}
    mod({{ goal }}, nullif(86400 * {{ week }}, 0))
  {%- endset -%}
  case
    when {{ amount10000 }} <= 0 then 0
    {%- for k in range(7) %}
    {%- set before = '(' ~ tap_balance.sum_of(range(k), 'ahead_#_e6') ~ ')' if k else '0' %}
    when {{ rest }} <= 86400 * ({{ tap_balance.sum_of(range(k + 1), 'ahead_#_e6') }})
      then 604800 * {{ weeks }} + {{ 86400 * k }} - {{ begun }}
      + coalesce({{ tap_balance.divided_down(
        rest ~ ' - 86400 * ' ~ before, 'nullif(ahead_' ~ k ~ '_e6, 0)'
      ) }}, 0)
    {%- endfor %}
  end
{%- endmacro %}

{#- Whether a row belongs to the account, product and currency of a row of int_tap_balance__latest:
    what has no currency yet belongs to the first that is known. -#}
{% macro same_series(row, latest) -%}
  {{ row }}.account = {{ latest }}.account
  and {{ row }}.product = {{ latest }}.product
  and coalesce({{ row }}.currency, {{ latest }}.first_currency, '')
  = coalesce({{ latest }}.currency, '')
{%- endmacro %}
