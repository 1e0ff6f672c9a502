-- The tasks whose type begins with each prefix, in no order, at most $3 of
-- each. $2 is the first text behind each prefix.
SELECT ARRAY(
    SELECT t.number
    FROM taskcast.task t
    WHERE t.type >= w.prefix AND t.type < w.past AND t.deleted_at IS NULL
    LIMIT $3
) AS "numbers!"
FROM unnest($1::text[], $2::text[]) AS w (prefix, past)
