select account, snapshot_at
from {{ ref('tap_balance', 'balance_changes') }}
