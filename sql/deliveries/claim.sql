-- Claims deliveries that are due: for each of the receivers in $1 as many as
-- stand in $2, for as long as stands in $3. Rows somebody else is claiming are
-- passed over; those of deleted tasks are nobody's.
WITH
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
due AS MATERIALIZED (
    SELECT x.task, x.index, x.hook, r.lease
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS r (receiver, most, lease)
    CROSS JOIN LATERAL (
        SELECT d.task, d.index, d.hook
        FROM taskcast.delivery d
        WHERE d.state = 0
            AND d.ready
            AND d.receiver = r.receiver
            AND EXISTS (SELECT FROM taskcast.head h WHERE h.task = d.task AND h.status <> 9)
        ORDER BY d.next_at
        LIMIT r.most
        FOR UPDATE OF d SKIP LOCKED
    ) x
),
claimed AS (
    UPDATE taskcast.delivery d
    SET attempts = d.attempts + 1, next_at = c.now + due.lease, ready = false, updated_at = c.now
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
