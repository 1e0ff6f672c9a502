-- Accumulate series (mode 1) that began before $2, their newest event before
-- it, and the text field in force there: from the part of the log that is not
-- rolled up ($3 is where that begins), grouped once, else from the newest text
-- chunk.
WITH tail AS MATERIALIZED (
    SELECT e.series, max(e.index) AS index
    FROM taskcast.event e
    WHERE e.task = $1 AND e.index >= $3::bigint AND e.index < $2::bigint AND e.text_bytes IS NOT NULL
    GROUP BY e.series
)
SELECT
    s.id,
    s.type AS event_type,
    s.level,
    coalesce(e.field, e.member, s.named_field) AS field,
    s.first_index,
    e.index AS "last_index!"
FROM taskcast.series s
LEFT JOIN tail t ON t.series = s.id
CROSS JOIN LATERAL (
    SELECT x.index, x.field, x.member
    FROM taskcast.event x
    WHERE x.task = s.task
        AND x.index = coalesce(t.index, (
            SELECT c.last_index
            FROM taskcast.text_chunk c
            WHERE c.task = s.task AND c.series = s.id AND c.height = 0 AND c.ordinal < $4::bigint
            ORDER BY c.ordinal DESC
            LIMIT 1
        ))
) e
WHERE s.task = $1 AND s.mode = 1 AND s.first_index < $2::bigint
