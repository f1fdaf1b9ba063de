-- Accounts to top up soon.
{{ config(severity='warn') }}
{{ alert(['low']) }}
