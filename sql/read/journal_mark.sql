-- Where every lane stands at this moment, which one row tells at least.
SELECT
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "now!",
    l.lane AS "lane?",
    coalesce((SELECT r.batch FROM taskcast.receipt r WHERE r.lane = l.lane ORDER BY r.batch DESC LIMIT 1), 0)
        AS "batch!"
FROM (SELECT) c
LEFT JOIN (SELECT lane FROM taskcast.lane UNION ALL SELECT lane FROM taskcast.retired_lane) l ON true
