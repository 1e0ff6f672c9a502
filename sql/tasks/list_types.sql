-- The newest tasks of each type below a number, from the index alone.
SELECT ARRAY(
    SELECT t.number
    FROM taskcast.task t
    WHERE t.type = w.type AND t.deleted_at IS NULL AND t.number < $2::bigint
    ORDER BY t.number DESC
    LIMIT $3
) AS "numbers!"
FROM unnest($1::text[]) AS w (type)
