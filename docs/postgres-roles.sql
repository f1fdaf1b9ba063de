-- Separate roles for the loader, for dbt and for those who only read, with no more rights than each needs.
--
--   psql -f docs/postgres-roles.sql 'postgresql://admin@host/database'
--
-- Run it in the database that is loaded into, as its owner with CREATEROLE or as a superuser, before the first
-- load or later; running it again changes nothing. Set the passwords afterwards, such as with psql's \password.
-- Other names: psql -v loader=... -v dbt=... -v reader=... -v source_schema=... -v marts_schema=...

\set ON_ERROR_STOP on
\if :{?loader}
\else
  \set loader balance_loader
\endif
\if :{?dbt}
\else
  \set dbt balance_dbt
\endif
\if :{?reader}
\else
  \set reader balance_reader
\endif
\if :{?source_schema}
\else
  \set source_schema tap_balance
\endif
\if :{?marts_schema}
\else
  \set marts_schema tap_balance_marts
\endif

BEGIN;

-- PostgreSQL has no CREATE ROLE IF NOT EXISTS.
SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY[:'loader', :'dbt', :'reader']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- Whoever is no superuser has to be a member of the roles to give them schemas and default privileges.
SELECT format('GRANT %I TO CURRENT_USER', name)
FROM unnest(ARRAY[:'loader', :'dbt']) AS name
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \gexec

SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I, %I', current_database(), :'loader', :'dbt'),
  format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'reader'),
  -- The target stores wall-clock times of the session's time zone. PGTZ sets it, too, but not every pooler heeds that.
  format('ALTER ROLE %I IN DATABASE %I SET timezone TO ''UTC''', :'loader', current_database()) \gexec

-- The target makes the table, and columns that are added later.
CREATE SCHEMA IF NOT EXISTS :"source_schema" AUTHORIZATION :"loader";
GRANT USAGE ON SCHEMA :"source_schema" TO :"dbt", :"reader";
GRANT SELECT ON ALL TABLES IN SCHEMA :"source_schema" TO :"dbt", :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"loader" IN SCHEMA :"source_schema" GRANT SELECT ON TABLES TO :"dbt", :"reader";

-- dbt rebuilds its tables, so the readers need default privileges.
CREATE SCHEMA IF NOT EXISTS :"marts_schema" AUTHORIZATION :"dbt";
GRANT USAGE ON SCHEMA :"marts_schema" TO :"reader";
GRANT SELECT ON ALL TABLES IN SCHEMA :"marts_schema" TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"dbt" IN SCHEMA :"marts_schema" GRANT SELECT ON TABLES TO :"reader";

COMMIT;
