{#- Tests of the rows that an incremental run rebuilds: those before have been tested. -#}

{#- No two rows have the same values in `columns`, of which null is one. -#}
{% test unique_recently(model, columns, time) %}
select {{ columns | join(', ') }}
from {{ model }}
where {{ time }} >= {{ rebuilt_recently() }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{#- A column has no other values than these. -#}
{% test accepted_recently(model, column_name, values, time) %}
select {{ column_name }}
from {{ model }}
where {{ time }} >= {{ rebuilt_recently() }} and {{ column_name }} not in ({{ text_list(values) }})
{% endtest %}
