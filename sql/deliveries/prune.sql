-- Removes a bounded number of deliveries in one state that were kept long
-- enough, and says how old the newest of them was. Begins at $4, where the last
-- removal ended: under an old snapshot the index entries of what was removed
-- before are still there.
WITH gone AS (
    DELETE FROM taskcast.delivery
    WHERE ctid = ANY (
        ARRAY(
            SELECT d.ctid
            FROM taskcast.delivery d
            WHERE d.state <> 0
                AND d.state = $1
                AND d.updated_at >= $4::bigint
                AND d.updated_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2::bigint
            ORDER BY d.updated_at
            LIMIT $3
        )
    )
    RETURNING updated_at
)
SELECT count(*) AS "count!", max(g.updated_at) AS newest FROM gone g
