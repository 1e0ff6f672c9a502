-- The first event left at or after an index, for a search by time.
SELECT u.index AS "index!", u.at AS "at!"
FROM (
    (SELECT e.index, e.at FROM taskcast.event e WHERE e.task = $1 AND e.index >= $2 ORDER BY e.index LIMIT 1)
    UNION ALL
    (SELECT d.index, d.at FROM taskcast.delta d WHERE d.task = $1 AND d.index >= $2 ORDER BY d.index LIMIT 1)
) u
ORDER BY u.index
LIMIT 1
