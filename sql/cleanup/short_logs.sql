-- Short logs of finished tasks that are not rolled up, whole, in order; data
-- and field in force of deltas only. Ends after about $2 bytes of those: what
-- is missing of the last task comes another time.
SELECT
    u.task, u.index, u.level, u.mode, u.type AS event_type, u.series, u.field,
    u.is_delta AS "is_delta!", u.data AS "data!"
FROM (
    SELECT x.*, sum(octet_length(x.data)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
    FROM unnest($1::bigint[]) AS w (task)
    CROSS JOIN LATERAL (
        SELECT
            e.task, e.index, e.level, e.mode, e.type, e.series,
            coalesce(e.field, e.member) AS field,
            e.text_bytes IS NOT NULL AS is_delta,
            CASE WHEN e.text_bytes IS NOT NULL THEN e.data ELSE '' END AS data
        FROM taskcast.event e
        WHERE e.task = w.task
            AND NOT EXISTS (SELECT FROM taskcast.rollup r WHERE r.task = w.task AND r.height = 0 AND r.ordinal = 0)
        ORDER BY e.index
    ) x
) u
WHERE u.bytes <= $2::bigint
