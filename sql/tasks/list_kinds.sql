-- The types that begin with one of these prefixes, at most $3 of each: a loose
-- index scan, one probe for each type. $2 is the first text behind each prefix.
SELECT k.type AS "event_type!"
FROM unnest($1::text[], $2::text[]) AS w (prefix, past)
CROSS JOIN LATERAL (
    WITH RECURSIVE kinds AS (
        SELECT (
            SELECT t.type
            FROM taskcast.task t
            WHERE t.type >= w.prefix AND t.type < w.past AND t.deleted_at IS NULL
            ORDER BY t.type
            LIMIT 1
        ) AS type
        UNION ALL
        SELECT (
            SELECT t.type
            FROM taskcast.task t
            WHERE t.type > k.type AND t.type < w.past AND t.deleted_at IS NULL
            ORDER BY t.type
            LIMIT 1
        )
        FROM kinds k
        WHERE k.type IS NOT NULL
    )
    SELECT kinds.type FROM kinds WHERE kinds.type IS NOT NULL LIMIT $3
) k
LIMIT $3
