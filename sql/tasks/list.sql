-- A page of tasks among candidates, which are given newest first. A null filter
-- admits all. Stops before the page is longer than $8 tasks or $9 bytes, except
-- for its first task: lengths are known without reading what they are of. Says
-- of each task how many were found, one beyond the page included.
WITH found AS MATERIALIZED (
    SELECT x.*
    FROM unnest($1::bigint[]) AS c (number)
    -- A nested loop in the order of the candidates: without a sort, those after
    -- the last task wanted are not looked at.
    CROSS JOIN LATERAL (
        SELECT
            t.number, t.id, t.type AS task_type, t.tags, t.params, t.metadata, h.result, h.error, t.ttl_seconds,
            t.created_at, t.auth_config, t.webhooks, t.cleanup, h.status, h.updated_at,
            $7::bigint + octet_length(t.id) + coalesce(octet_length(t.type), 0)
                + coalesce(octet_length(t.params), 0) + coalesce(octet_length(t.metadata), 0)
                + coalesce(octet_length(h.result), 0) + coalesce(octet_length(h.error), 0)
                + coalesce(octet_length(t.auth_config), 0) + coalesce(octet_length(t.webhooks), 0)
                + coalesce(octet_length(t.cleanup), 0) + coalesce(pg_column_size(t.tags), 0) AS bytes
        FROM taskcast.task t
        JOIN taskcast.head h ON h.task = t.number
        WHERE t.number = c.number
            AND t.deleted_at IS NULL
            AND ($2::smallint[] IS NULL OR h.status = ANY ($2))
            AND ($3::text[] IS NULL OR t.type = ANY ($3) OR t.type LIKE ANY ($4::text[]))
            AND ($5::text[] IS NULL OR t.tags @> $5)
            AND ($6::text[] IS NULL OR t.id = ANY ($6))
        OFFSET 0
    ) x
    LIMIT $8::bigint + 1
)
SELECT
    p.number AS "number!", p.id AS "id!", p.task_type, p.tags, p.params, p.metadata, p.result, p.error,
    p.ttl_seconds, p.created_at AS "created_at!", p.auth_config, p.webhooks, p.cleanup,
    p.status AS "status!", p.updated_at AS "updated_at!", (SELECT count(*) FROM found) AS "found!"
FROM (
    SELECT f.*, sum(f.bytes) OVER (ORDER BY f.number DESC ROWS UNBOUNDED PRECEDING) AS bytes_until
    FROM found f
) p
WHERE p.bytes_until = p.bytes OR p.bytes_until <= $9::bigint
ORDER BY p.number DESC
LIMIT $8
