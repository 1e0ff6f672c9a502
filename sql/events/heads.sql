SELECT t.id, h.task, h.status, h.next_index, h.last_at, t.auth_config
FROM taskcast.head h
JOIN taskcast.task t ON t.number = h.task
WHERE h.task = ANY ($1::bigint[])
