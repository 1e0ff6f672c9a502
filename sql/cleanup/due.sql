-- What is due, oldest first.
SELECT
    c.task, c.rule, c.next_index AS from_index, h.end_index AS "next_index!", h.updated_at, t.id, t.cleanup,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "now!"
FROM taskcast.cleanup c
JOIN taskcast.head h ON h.task = c.task
JOIN taskcast.task t ON t.number = c.task
WHERE c.due_at <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    AND h.status BETWEEN 2 AND 5
    AND NOT EXISTS (SELECT FROM taskcast.delivery d WHERE d.task = c.task AND d.state = 0)
ORDER BY c.due_at, c.task
LIMIT $1
