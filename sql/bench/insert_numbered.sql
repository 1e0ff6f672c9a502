-- One event that takes its number from a counter of its task, as a log without
-- gaps naively does. The floor, which these tasks have no use for, is the counter.
WITH head AS (
    UPDATE taskcast.head
    SET floor = floor + 1
    WHERE task = $1
    RETURNING task, floor - 1 AS index
)
INSERT INTO taskcast.event (task, index, at, level, type, data)
SELECT head.task, head.index, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 1, 'bench.delta', $2
FROM head
