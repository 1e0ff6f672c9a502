-- Makes a delivery due at once, as long as there is still an event to send. It
-- takes the event along: cleanup, which looked when nothing was owed, may be
-- about to remove it.
UPDATE taskcast.delivery d
SET
    state = 0,
    ready = true,
    attempts = 0,
    next_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    updated_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    level = s.level,
    mode = s.mode,
    type = s.type,
    series = s.series,
    field = s.field,
    data = s.data
FROM (
    SELECT x.level, x.mode, x.type, x.series, x.field, x.data
    FROM taskcast.delivery x
    WHERE x.task = $1 AND x.index = $2 AND x.hook = $3 AND x.data IS NOT NULL
    UNION ALL
    SELECT e.level, e.mode, e.type, e.series, e.field, e.data
    FROM taskcast.event e
    WHERE e.task = $1 AND e.index = $2
    LIMIT 1
) s
WHERE d.task = $1 AND d.index = $2 AND d.hook = $3
RETURNING d.index, d.hook, d.at, d.state, d.attempts, d.next_at, d.updated_at, d.last_status, d.last_problem
