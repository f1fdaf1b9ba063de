{#- One row per account: its newest snapshot. -#}
with newest as (
  select account, max(closing_snapshot_at) as snapshot_at
  from {{ ref('balance_daily') }}
  where closing_snapshot_at <= {{ as_of() }}
  group by account
)

select
  changes.account,
  changes.product,
  changes.currency,
  changes.snapshot_at,
  changes.observed_at,
  case
    when changes.observed_at > {{ as_of() }} then 0
    else {{ seconds_between('changes.observed_at', as_of()) }}
  end as age_seconds,
  changes.balance10000,
  changes.gift_balance10000,
  changes.total_balance10000,
  {{ decimal_of('changes.balance10000') }} as balance,
  {{ decimal_of('changes.gift_balance10000') }} as gift_balance,
  {{ decimal_of('changes.total_balance10000') }} as total_balance
from newest
inner join {{ ref('balance_changes') }} as changes
  on newest.account = changes.account and newest.snapshot_at = changes.snapshot_at
{%- if var('retired_accounts') %}
where changes.account not in ({{ text_list(var('retired_accounts')) }})
{%- endif %}
