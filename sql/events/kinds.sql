-- Type and level of every event before $2 that is not summed up, in order, and
-- how many blocks of $3 events are. One statement sees both at one moment:
-- summing a block up removes events that a later statement would miss.
SELECT s.blocks AS "blocks!", u.index AS "index?", u.type AS "event_type?", u.level AS "level?"
FROM (
    SELECT coalesce((
        SELECT n.ordinal + 1
        FROM taskcast.node n
        WHERE n.task = $1 AND n.height = 0
        ORDER BY n.ordinal DESC
        LIMIT 1
    ), 0) AS blocks
) s
LEFT JOIN LATERAL (
    SELECT e.index, e.type, e.level
    FROM taskcast.event e
    WHERE e.task = $1 AND e.index >= s.blocks * $3::bigint AND e.index < $2
    UNION ALL
    SELECT d.index, d.type, d.level
    FROM taskcast.delta d
    WHERE d.task = $1 AND d.index >= s.blocks * $3::bigint AND d.index < $2
) u ON true
ORDER BY u.index
