-- Has Postgres end what follows in this transaction before the caller stops
-- waiting for it.
SELECT set_config('statement_timeout', '2s', true) AS "timeout!"
