-- Deleted tasks whose readers had time to see that they are gone, oldest first.
SELECT number
FROM taskcast.task
WHERE deleted_at < (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1::bigint)
ORDER BY deleted_at
LIMIT $2
