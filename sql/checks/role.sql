-- What the server is that answers: whether it follows another one, and whether
-- transactions are read-only.
SELECT
    pg_is_in_recovery() AS "is_standby!",
    current_setting('transaction_read_only') = 'on' AS "is_read_only!"
