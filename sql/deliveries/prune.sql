-- A bounded bite of deliveries in one state that were kept long enough.
DELETE FROM taskcast.delivery
WHERE ctid = ANY (
    ARRAY(
        SELECT d.ctid
        FROM taskcast.delivery d
        WHERE d.state <> 0
            AND d.state = $1
            AND d.updated_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2::bigint
        ORDER BY d.updated_at
        LIMIT $3
    )
)
