-- Everything in a block, in order; data and field in force of deltas only.
SELECT
    e.index, e.level, e.mode, e.type AS event_type, e.series,
    coalesce(e.field, e.member) AS field,
    e.text_bytes IS NOT NULL AS "is_delta!",
    CASE WHEN e.text_bytes IS NOT NULL THEN e.data ELSE '' END AS "data!"
FROM taskcast.event e
WHERE e.task = $1 AND e.index >= $2 AND e.index < $3
ORDER BY e.index
