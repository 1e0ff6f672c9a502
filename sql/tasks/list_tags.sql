-- The newest tasks with each tag below a number, from the index alone.
SELECT ARRAY(
    SELECT t.task
    FROM taskcast.task_tag t
    WHERE t.tag = w.tag AND t.task < $2::bigint
    ORDER BY t.task DESC
    LIMIT $3
) AS "numbers!"
FROM unnest($1::text[]) AS w (tag)
