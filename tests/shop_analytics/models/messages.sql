select account, reason, severity, message
from {{ ref('balance_alerts') }}
