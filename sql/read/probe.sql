-- The first event left at or after an index, for a search by time.
SELECT e.index, e.at
FROM taskcast.event e
WHERE e.task = $1 AND e.index >= $2
ORDER BY e.index
LIMIT 1
