-- What is due, oldest first; with $2 only by rules that tasks brought along. The
-- time is a subquery, so that the index ends the scan; so is what is owed, which
-- is looked up for each task.
SELECT
    c.task, c.rule, c.next_index AS from_index, h.end_index AS "next_index!", h.updated_at, t.id, t.cleanup,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "now!"
FROM taskcast.cleanup c
JOIN taskcast.head h ON h.task = c.task
JOIN taskcast.task t ON t.number = c.task
WHERE c.due_at <= (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    AND (NOT $2::boolean OR c.rule LIKE 't%')
    AND h.status BETWEEN 2 AND 5
    AND (SELECT true FROM taskcast.delivery d WHERE d.task = c.task AND d.state = 0 LIMIT 1) IS NULL
ORDER BY c.due_at, c.task
LIMIT $1
