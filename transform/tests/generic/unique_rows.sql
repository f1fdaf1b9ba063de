{#- No two rows have the same values in `columns`, of which null is one. -#}
{% test unique_rows(model, columns) %}
select {{ columns | join(', ') }}
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{#- The same of the rows that an incremental run rebuilds: those before have been tested. -#}
{% test unique_recently(model, columns, time) %}
select {{ columns | join(', ') }}
from {{ model }}
where {{ time }} >= {{ timestamp_literal(
  as_of_datetime() - modules.datetime.timedelta(hours=settings()['lookback_hours'])
) }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
