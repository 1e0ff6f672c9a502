-- As head.sql, by number; deleted tasks too, until they are purged.
SELECT
    t.id, h.task, h.status, t.auth_config,
    coalesce(h.end_index, newest.index + 1, 0) AS "next_index!",
    CASE WHEN h.end_index IS NULL THEN coalesce(newest.at, 0) ELSE h.updated_at END AS "last_at!"
FROM taskcast.head h
JOIN taskcast.task t ON t.number = h.task
LEFT JOIN LATERAL (
    SELECT e.index, e.at FROM taskcast.event e WHERE e.task = h.task ORDER BY e.index DESC LIMIT 1
) newest ON h.end_index IS NULL
WHERE h.task = ANY ($1::bigint[])
