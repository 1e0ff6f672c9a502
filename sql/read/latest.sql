-- The event that stands for each of these latest series: the newest one that
-- is not rolled up, else the one that the roll-ups retain.
WITH
wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::text[]) AS w (task, series)
),
tail AS MATERIALIZED (
    SELECT e.task, e.series, max(e.index) AS index
    FROM (SELECT DISTINCT w.task FROM wanted w) t
    CROSS JOIN LATERAL (
        SELECT coalesce((
            SELECT r.ordinal + 1
            FROM taskcast.rollup r
            WHERE r.task = t.task AND r.height = 0
            ORDER BY r.ordinal DESC
            LIMIT 1
        ), 0) * $3::bigint AS start
    ) s
    CROSS JOIN LATERAL (
        SELECT x.task, x.series, x.index
        FROM taskcast.event x
        WHERE x.task = t.task AND x.index >= s.start AND x.mode = 2
        OFFSET 0
    ) e
    GROUP BY e.task, e.series
)
SELECT w.task AS "task!", w.series AS "series!", coalesce(t.index, l.index) AS index
FROM wanted w
LEFT JOIN tail t ON t.task = w.task AND t.series = w.series
LEFT JOIN LATERAL (
    SELECT x.index FROM taskcast.latest_retained x WHERE x.task = w.task AND x.series = w.series OFFSET 0
) l ON true
