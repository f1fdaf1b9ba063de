-- Accounts that nothing is known of: the tap or its schedule stands still, or no longer asks them.
-- No account at all is no good news either.
{{ alert(['stale']) }}
union all
select
  null, 'stale', null, null, null, null, null, null, null, null, null, null,
  'there is no account at all: nothing has been loaded, or all are retired'
where not exists (select 1 from {{ ref('balance_runway') }})
