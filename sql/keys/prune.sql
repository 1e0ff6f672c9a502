-- Removes a bounded number of keys that were kept long enough, and says how old
-- the newest of them was. Begins at $3, where the last removal ended: under an
-- old snapshot the index entries of what was removed before are still there.
WITH gone AS (
    DELETE FROM taskcast.idempotency
    WHERE key = ANY (
        ARRAY(
            SELECT i.key
            FROM taskcast.idempotency i
            WHERE i.at >= $3::bigint
                AND i.at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1::bigint
            ORDER BY i.at
            LIMIT $2
        )
    )
    RETURNING at
)
SELECT count(*) AS "count!", max(g.at) AS newest FROM gone g
