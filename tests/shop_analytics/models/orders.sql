select account, currency, status, days_left
from {{ ref('tap_balance', 'balance_runway') }}
where status in ('critical', 'low')
