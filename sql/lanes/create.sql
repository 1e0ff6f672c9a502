-- Creates tasks. Ids arrive sorted, so that two creators who share some wait
-- for each other instead of deadlocking.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
        AS i (id, nonce, type, tags, params, metadata, ttl_seconds)
),
fresh AS (
    INSERT INTO taskcast.task (id, nonce, type, tags, params, metadata, ttl_seconds, created_at)
    SELECT
        i.id, i.nonce, i.type, string_to_array(i.tags, E'\n'), i.params, i.metadata, i.ttl_seconds,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM input i
    ON CONFLICT (id) WHERE deleted_at IS NULL DO NOTHING
    RETURNING number, id, nonce, created_at, ttl_seconds
),
heads AS (
    INSERT INTO taskcast.head (task, status, next_index, last_at, updated_at, deadline)
    SELECT f.number, 0, 0, 0, f.created_at, f.created_at + f.ttl_seconds * 1000
    FROM fresh f
)
SELECT f.number AS "number!", f.nonce AS "nonce!", f.created_at AS "created_at!"
FROM fresh f
