-- Tasks past their deadline, oldest first, along the deadline index, which ends
-- the scan because the time is a subquery: a volatile call would be compared with
-- each deadline.
SELECT t.id
FROM taskcast.head h
JOIN taskcast.task t ON t.number = h.task
WHERE h.deadline <= (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
ORDER BY h.deadline
LIMIT $1
