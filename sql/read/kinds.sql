-- Type and level of every event before $2 that is not rolled up, in order, and
-- how many blocks of $3 events are. One statement sees both at one moment:
-- once a block is rolled up, events of it are removed that a later statement
-- would miss.
SELECT s.blocks AS "blocks!", e.index AS "index?", e.type AS "event_type?", e.level AS "level?",
    e.text_bytes IS NOT NULL AS "is_delta!"
FROM (
    SELECT coalesce((
        SELECT r.ordinal + 1
        FROM taskcast.rollup r
        WHERE r.task = $1 AND r.height = 0
        ORDER BY r.ordinal DESC
        LIMIT 1
    ), 0) AS blocks
) s
LEFT JOIN LATERAL (
    SELECT e.index, e.type, e.level, e.text_bytes
    FROM taskcast.event e
    WHERE e.task = $1 AND e.index >= s.blocks * $3::bigint AND e.index < $2
) e ON true
ORDER BY e.index
