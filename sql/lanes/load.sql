-- What verdicts depend on, of one moment: heads, and those series that the
-- requests name (null for a request without one).
SELECT
    t.id AS "id!",
    t.number AS "number!",
    t.type AS task_type,
    t.auth_config,
    t.webhooks,
    h.status AS "status!",
    h.next_index AS "next_index!",
    s.id AS "series_id?",
    s.mode AS "mode?",
    s.level AS "level?",
    s.type AS "event_type?",
    s.named_field,
    s.field,
    s.first_index AS "first_index?",
    s.last_index AS "last_index?",
    s.text_bytes AS "text_bytes?"
FROM unnest($1::text[], $2::text[]) AS i (id, series)
JOIN taskcast.task t ON t.id = i.id AND t.deleted_at IS NULL
JOIN taskcast.head h ON h.task = t.number
LEFT JOIN taskcast.series s ON s.task = t.number AND s.id = i.series
