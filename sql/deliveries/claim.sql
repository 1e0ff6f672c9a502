-- Claims deliveries that are due: some for each receiver, in random order of
-- receivers, so that none waits for another. Rows somebody else is claiming
-- are passed over; those of deleted tasks are nobody's.
WITH RECURSIVE
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
-- One step along the index for each receiver, however much it is owed.
receivers AS (
    (SELECT d.receiver FROM taskcast.delivery d WHERE d.state = 0 ORDER BY d.receiver LIMIT 1)
    UNION ALL
    SELECT (
        SELECT d.receiver
        FROM taskcast.delivery d
        WHERE d.state = 0 AND d.receiver > r.receiver
        ORDER BY d.receiver
        LIMIT 1
    )
    FROM receivers r
    WHERE r.receiver IS NOT NULL
),
due AS MATERIALIZED (
    SELECT x.task, x.index, x.hook
    FROM (
        SELECT r.receiver
        FROM receivers r
        WHERE r.receiver IS NOT NULL AND r.receiver <> ALL ($1::bigint[])
        ORDER BY random()
    ) r
    CROSS JOIN clock c
    CROSS JOIN LATERAL (
        SELECT d.task, d.index, d.hook
        FROM taskcast.delivery d
        WHERE d.state = 0
            AND d.receiver = r.receiver
            AND d.next_at <= c.now
            AND EXISTS (SELECT FROM taskcast.head h WHERE h.task = d.task AND h.status <> 9)
        ORDER BY d.next_at
        LIMIT $2::bigint
        FOR UPDATE OF d SKIP LOCKED
    ) x
    LIMIT $3::bigint
),
claimed AS (
    UPDATE taskcast.delivery d
    SET attempts = d.attempts + 1, next_at = c.now + $4::bigint, updated_at = c.now
    FROM due, clock c
    WHERE d.task = due.task AND d.index = due.index AND d.hook = due.hook
    RETURNING d.*
)
SELECT
    c.task AS "task!",
    c.index AS "index!",
    c.hook AS "hook!",
    c.receiver AS "receiver!",
    c.at AS "at!",
    c.attempts AS "attempts!",
    t.id AS "id!",
    t.webhooks,
    coalesce(c.level, e.level) AS level,
    coalesce(c.mode, e.mode) AS mode,
    coalesce(c.type, e.type) AS event_type,
    coalesce(c.series, e.series) AS series,
    coalesce(c.field, e.field) AS field,
    coalesce(c.data, e.data) AS data
FROM claimed c
JOIN taskcast.task t ON t.number = c.task
LEFT JOIN taskcast.event e ON e.task = c.task AND e.index = c.index
ORDER BY c.task, c.index
