-- Where every lane stands at this moment.
SELECT
    l.lane,
    coalesce((SELECT r.batch FROM taskcast.receipt r WHERE r.lane = l.lane ORDER BY r.batch DESC LIMIT 1), 0)
        AS "batch!"
FROM taskcast.lane l
