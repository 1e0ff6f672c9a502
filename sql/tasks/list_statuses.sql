-- The newest tasks of each status below a number, from the index alone.
SELECT ARRAY(
    SELECT h.task
    FROM taskcast.head h
    WHERE h.status = s.status AND h.task < $2::bigint
    ORDER BY h.task DESC
    LIMIT $3
) AS "numbers!"
FROM unnest($1::smallint[]) AS s (status)
