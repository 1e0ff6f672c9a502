-- Creates tasks. Ids arrive sorted, so that two creators who share some wait
-- for each other instead of deadlocking. A key that is there already keeps its
-- request from happening again; one that arrives meanwhile breaks the
-- statement, which is then sent anew.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
        $9::text[], $10::text[], $11::bytea[], $12::bytea[]
    )
        AS i (
            id, nonce, type, tags, params, metadata, ttl_seconds, auth_config, webhooks, cleanup, key, request
        )
    WHERE i.key IS NULL OR NOT EXISTS (SELECT FROM taskcast.idempotency k WHERE k.key = i.key)
),
fresh AS (
    INSERT INTO taskcast.task (
        id, nonce, type, tags, params, metadata, ttl_seconds, auth_config, webhooks, cleanup, created_at
    )
    SELECT
        i.id, i.nonce, i.type, string_to_array(i.tags, E'\n'), i.params, i.metadata, i.ttl_seconds,
        i.auth_config, i.webhooks, i.cleanup, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM input i
    ON CONFLICT (id) WHERE deleted_at IS NULL DO NOTHING
    RETURNING number, id, nonce, created_at, ttl_seconds, cleanup, tags
),
heads AS (
    INSERT INTO taskcast.head (task, status, updated_at, deadline, scheduled_rules)
    SELECT
        f.number, 0, f.created_at, f.created_at + f.ttl_seconds * 1000,
        CASE WHEN f.cleanup IS NULL THEN 0 ELSE -1 END
    FROM fresh f
),
tagged AS (
    INSERT INTO taskcast.task_tag (tag, task)
    SELECT g.tag, f.number
    FROM fresh f
    CROSS JOIN LATERAL unnest(f.tags) AS g (tag)
    ON CONFLICT DO NOTHING
),
keyed AS (
    INSERT INTO taskcast.idempotency (key, request, task, task_id, first_index, at)
    SELECT i.key, i.request, f.number, f.id, 0, f.created_at
    FROM fresh f
    JOIN input i ON i.nonce = f.nonce AND i.id = f.id
    WHERE i.key IS NOT NULL
)
SELECT f.number AS "number!", f.nonce AS "nonce!", f.created_at AS "created_at!"
FROM fresh f
