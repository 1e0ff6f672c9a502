-- How many blocks of a log are rolled up.
SELECT coalesce((
    SELECT r.ordinal + 1
    FROM taskcast.rollup r
    WHERE r.task = $1 AND r.height = 0
    ORDER BY r.ordinal DESC
    LIMIT 1
), 0) AS "blocks!"
