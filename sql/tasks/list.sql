-- A page of tasks below a number, newest first. A null filter admits all.
SELECT
    t.number, t.id, t.type AS task_type, t.tags, t.params, t.metadata, h.result, h.error, t.ttl_seconds, t.created_at,
    t.auth_config, t.webhooks, t.cleanup,
    h.status, h.updated_at
FROM taskcast.task t
JOIN taskcast.head h ON h.task = t.number
WHERE t.deleted_at IS NULL
    AND t.number < $1
    AND ($2::smallint[] IS NULL OR h.status = ANY ($2))
    AND ($3::text[] IS NULL OR t.type LIKE ANY ($3))
    AND ($4::text[] IS NULL OR t.tags @> $4)
    AND ($5::text[] IS NULL OR t.id = ANY ($5))
ORDER BY t.number DESC
LIMIT $6
