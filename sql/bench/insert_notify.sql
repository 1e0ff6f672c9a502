-- One event, and whoever listens is told as it commits.
WITH event AS (
    INSERT INTO taskcast.event (task, index, at, level, type, data)
    VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 1, 'bench.delta', $3)
    RETURNING task, index
)
SELECT pg_notify('taskcast_bench', event.task || ' ' || event.index)
FROM event
