-- Tasks by number, as they are now.
SELECT
    t.number, t.id, t.type AS task_type, t.tags, t.params, t.metadata, h.result, h.error, t.ttl_seconds, t.created_at,
    t.auth_config, t.webhooks, t.cleanup,
    h.status, h.updated_at
FROM unnest($1::bigint[]) AS n (number)
CROSS JOIN LATERAL (SELECT x.* FROM taskcast.task x WHERE x.number = n.number OFFSET 0) t
CROSS JOIN LATERAL (SELECT x.* FROM taskcast.head x WHERE x.task = n.number OFFSET 0) h
