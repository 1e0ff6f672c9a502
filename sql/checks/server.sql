-- What a database must offer.
SELECT
    current_setting('server_version_num')::integer AS "version!",
    current_setting('server_encoding') AS "encoding!",
    current_setting('synchronous_commit') AS "synchronous_commit!",
    pg_is_in_recovery() AS "is_standby!",
    current_setting('transaction_read_only') = 'on' AS "is_read_only!"
