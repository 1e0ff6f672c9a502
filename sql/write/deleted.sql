-- What a deletion whose reply was lost took away.
SELECT x.task AS "task!"
FROM taskcast.receipt r
CROSS JOIN LATERAL unnest(r.task) AS x (task)
WHERE r.lane = $1 AND r.batch = $2
