-- A bounded bite of keys that were kept long enough.
DELETE FROM taskcast.idempotency
WHERE key = ANY (
    ARRAY(
        SELECT i.key
        FROM taskcast.idempotency i
        WHERE i.at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1::bigint
        ORDER BY i.at
        LIMIT $2
    )
)
