-- Type and level of every event in a stretch that is not summed up, in order.
SELECT u.index AS "index!", u.type AS "event_type!", u.level AS "level!"
FROM (
    SELECT e.index, e.type, e.level
    FROM taskcast.event e
    WHERE e.task = $1 AND e.index >= $2 AND e.index < $3
    UNION ALL
    SELECT d.index, d.type, d.level
    FROM taskcast.delta d
    WHERE d.task = $1 AND d.index >= $2 AND d.index < $3
) u
ORDER BY u.index
