-- Where a task's log ends: its last row, unless the task is finished.
SELECT
    t.id, h.task, h.status, t.auth_config,
    coalesce(h.end_index, newest.index + 1, 0) AS "next_index!",
    CASE WHEN h.end_index IS NULL THEN coalesce(newest.at, 0) ELSE h.updated_at END AS "last_at!"
FROM taskcast.task t
JOIN taskcast.head h ON h.task = t.number
LEFT JOIN LATERAL (
    SELECT e.index, e.at FROM taskcast.event e WHERE e.task = h.task ORDER BY e.index DESC LIMIT 1
) newest ON h.end_index IS NULL
WHERE t.id = $1 AND t.deleted_at IS NULL
