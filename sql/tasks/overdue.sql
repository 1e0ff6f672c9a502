-- Tasks past their deadline, oldest first, along the deadline index.
SELECT t.id
FROM taskcast.head h
JOIN taskcast.task t ON t.number = h.task
WHERE h.deadline <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
ORDER BY h.deadline
LIMIT $1
