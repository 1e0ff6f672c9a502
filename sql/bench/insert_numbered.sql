-- One event that takes its number from its task, which is what a log without
-- gaps needs.
WITH head AS (
    UPDATE taskcast.head
    SET
        next_index = next_index + 1,
        last_at = greatest(last_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    WHERE task = $1
    RETURNING task, next_index - 1 AS index, last_at
)
INSERT INTO taskcast.event (task, index, at, level, type, data)
SELECT head.task, head.index, head.last_at, 1, 'bench.delta', $2
FROM head
