-- What a deletion whose reply was lost took away.
SELECT t.id, t.number, x.next_index AS "next_index!"
FROM taskcast.receipt r
CROSS JOIN LATERAL unnest(r.task, r.next_index) AS x (task, next_index)
JOIN taskcast.task t ON t.number = x.task
WHERE r.lane = $1 AND r.batch = $2
