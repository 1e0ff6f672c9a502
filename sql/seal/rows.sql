-- Everything in a block, in order.
SELECT
    u.index AS "index!", u.level AS "level!", u.mode, u.type AS "event_type!", u.series, u.data AS "data!"
FROM (
    SELECT e.index, e.level, e.mode, e.type, e.series, ''::text AS data
    FROM taskcast.event e
    WHERE e.task = $1 AND e.index >= $2 AND e.index < $3
    UNION ALL
    SELECT d.index, d.level, d.mode, d.type, d.series, d.data
    FROM taskcast.delta d
    WHERE d.task = $1 AND d.index >= $2 AND d.index < $3
) u
ORDER BY u.index
