-- Makes a delivery due at once, as long as there is still an event to send.
UPDATE taskcast.delivery d
SET
    state = 0,
    ready = true,
    attempts = 0,
    next_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    updated_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
WHERE d.task = $1
    AND d.index = $2
    AND d.hook = $3
    AND (
        d.data IS NOT NULL
        OR EXISTS (SELECT FROM taskcast.event e WHERE e.task = d.task AND e.index = d.index)
    )
RETURNING d.index, d.hook, d.at, d.state, d.attempts, d.next_at, d.updated_at, d.last_status, d.last_problem
