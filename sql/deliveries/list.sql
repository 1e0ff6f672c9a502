-- Deliveries of a task, newest event first.
SELECT d.index, d.hook, d.at, d.state, d.attempts, d.next_at, d.updated_at, d.last_status, d.last_problem
FROM taskcast.delivery d
WHERE d.task = $1 AND (d.index, d.hook) < ($2::bigint, $3::text)
ORDER BY d.index DESC, d.hook DESC
LIMIT $4
