-- Accounts whose messages stop within days, or have stopped. Somebody must top up now.
{{ alert(['critical', 'empty']) }}
