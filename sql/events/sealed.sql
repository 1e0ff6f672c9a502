-- How many blocks of a log are summed up.
SELECT coalesce((
    SELECT n.ordinal + 1
    FROM taskcast.node n
    WHERE n.task = $1 AND n.height = 0
    ORDER BY n.ordinal DESC
    LIMIT 1
), 0) AS "blocks!"
