-- Cancels what is owed to configured endpoints, has been due for $2
-- milliseconds and was claimed by nobody, except for the receivers in $1.
WITH RECURSIVE
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
-- One step for each endpoint that something is due for.
endpoints AS (
    (
        SELECT d.receiver
        FROM taskcast.delivery d
        WHERE d.state = 0 AND d.ready AND d.receiver < 0
        ORDER BY d.receiver
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT d.receiver
        FROM taskcast.delivery d
        WHERE d.state = 0 AND d.ready AND d.receiver > p.receiver AND d.receiver < 0
        ORDER BY d.receiver
        LIMIT 1
    )
    FROM endpoints p
    WHERE p.receiver IS NOT NULL
),
old AS MATERIALIZED (
    SELECT x.task, x.index, x.hook
    FROM endpoints p
    CROSS JOIN LATERAL (
        SELECT d.task, d.index, d.hook
        FROM taskcast.delivery d
        WHERE d.state = 0
            AND d.ready
            AND d.receiver = p.receiver
            AND d.next_at <= (SELECT c.now FROM clock c) - $2::bigint
        ORDER BY d.next_at
        LIMIT $3::bigint
        FOR UPDATE OF d SKIP LOCKED
    ) x
    WHERE p.receiver <> ALL ($1::bigint[])
    LIMIT $3::bigint
),
cancelled AS (
    UPDATE taskcast.delivery d
    SET state = 3, updated_at = c.now
    FROM old, clock c
    WHERE d.task = old.task AND d.index = old.index AND d.hook = old.hook
    RETURNING d.task, d.index, d.hook, d.at, d.attempts
)
SELECT
    c.task AS "task!",
    c.index AS "index!",
    c.hook AS "hook!",
    c.at AS "at!",
    c.attempts AS "attempts!",
    t.id AS "id!"
FROM cancelled c
JOIN taskcast.task t ON t.number = c.task
