-- Accounts that are asked and yet not judged: they have been `accumulating` for longer than the burn
-- rate looks back, so that waiting does not help.
{{ config(severity='warn') }}
select runway.*
from (
  {{
    alert(
      ['accumulating'],
      "', only ' || cast(complete_days as " ~ dbt.type_string() ~ ") || ' complete days in the last "
      ~ var('burn_window_days') ~ ": nobody says when it runs out'",
    )
  }}
) as runway
inner join (
  select account, product, currency
  from {{ ref('balance_daily') }}
  where day <= {{ as_of_day() }}
  group by account, product, currency
  having min(day) < {{ as_of_day(-var('burn_window_days')) }}
) as old
  on
    runway.account = old.account
    and runway.product = old.product
    and coalesce(runway.currency, '') = coalesce(old.currency, '')
