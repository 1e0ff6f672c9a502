SELECT t.id, h.task, h.status, h.next_index, h.last_at, t.auth_config
FROM taskcast.task t
JOIN taskcast.head h ON h.task = t.number
WHERE t.id = $1 AND t.deleted_at IS NULL
