-- Fails in `dbt test` for accounts that a person has to see to now.
{{ config(tags=['alert']) }}
{{ alerts_of('error') }}
