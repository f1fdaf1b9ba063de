-- Warns in `dbt test` of accounts that need a person soon.
{{ config(tags=['alert'], severity='warn') }}
{{ alerts_of('warn') }}
