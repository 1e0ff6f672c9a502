-- Notes how attempts ended, where the claim still holds. One that failed for
-- good takes its event along.
WITH
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
outcome AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::bigint[], $2::bigint[], $3::text[], $4::integer[], $5::smallint[], $6::bigint[], $7::boolean[],
        $8::integer[], $9::text[]
    ) AS o (task, index, hook, attempt, state, retry_in, was_made, status, problem)
),
kept AS MATERIALIZED (
    SELECT
        o.task, o.index, o.hook,
        e.level,
        e.mode,
        e.type,
        e.series,
        e.field,
        e.data
    FROM outcome o
    LEFT JOIN taskcast.event e ON e.task = o.task AND e.index = o.index
    WHERE o.state = 2
)
UPDATE taskcast.delivery d
SET
    state = o.state,
    attempts = CASE WHEN o.was_made THEN d.attempts ELSE d.attempts - 1 END,
    next_at = c.now + o.retry_in,
    ready = o.retry_in = 0,
    updated_at = c.now,
    last_status = CASE WHEN o.was_made THEN o.status ELSE d.last_status END,
    last_problem = CASE WHEN o.was_made THEN o.problem ELSE d.last_problem END,
    level = coalesce(d.level, k.level),
    mode = coalesce(d.mode, k.mode),
    type = coalesce(d.type, k.type),
    series = coalesce(d.series, k.series),
    field = coalesce(d.field, k.field),
    data = coalesce(d.data, k.data)
FROM clock c
CROSS JOIN outcome o
LEFT JOIN kept k ON k.task = o.task AND k.index = o.index AND k.hook = o.hook
WHERE d.task = o.task
    AND d.index = o.index
    AND d.hook = o.hook
    AND d.state = 0
    AND d.attempts = o.attempt
