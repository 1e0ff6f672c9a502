-- Marks what has become due, and returns receivers of webhooks of tasks that
-- something is due for: up to $2 of them from $1 on, and those of the marked.
WITH RECURSIVE
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
-- By place, not by key, so that no plan can read the whole table for it. Rows
-- that another instance is marking are passed over.
marked AS (
    UPDATE taskcast.delivery
    SET ready = true
    WHERE ctid = ANY (
        ARRAY(
            SELECT d.ctid
            FROM taskcast.delivery d
            WHERE d.state = 0 AND NOT d.ready AND d.next_at <= (SELECT c.now FROM clock c)
            ORDER BY d.next_at
            LIMIT $3::bigint
            FOR UPDATE SKIP LOCKED
        )
    )
    RETURNING receiver
),
-- A loose index scan: one step for each receiver, however much is due for it.
-- No more steps are made than rows are asked for.
walk AS (
    (
        SELECT d.receiver
        FROM taskcast.delivery d
        WHERE d.state = 0 AND d.ready AND d.receiver >= $1::bigint
        ORDER BY d.receiver
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT d.receiver
        FROM taskcast.delivery d
        WHERE d.state = 0 AND d.ready AND d.receiver > w.receiver
        ORDER BY d.receiver
        LIMIT 1
    )
    FROM walk w
    WHERE w.receiver IS NOT NULL
)
(
    SELECT w.receiver AS "receiver!", false AS "is_marked!"
    FROM walk w
    WHERE w.receiver IS NOT NULL
    LIMIT $2::bigint
)
UNION ALL
SELECT m.receiver, true FROM marked m
