SELECT
    t.number, t.id, t.type AS task_type, t.tags, t.params, t.metadata, h.result, h.error, t.ttl_seconds, t.created_at,
    t.auth_config, t.webhooks, t.cleanup,
    h.status, h.updated_at
FROM taskcast.task t
JOIN taskcast.head h ON h.task = t.number
WHERE t.id = $1 AND t.deleted_at IS NULL
