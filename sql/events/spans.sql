-- Accumulate series (mode 1) that began before $2, and their newest event
-- before it: from the series itself, else from the unsummed end of the log
-- ($3 is where that begins), else from the newest piece.
SELECT
    s.id,
    s.type AS event_type,
    s.level,
    s.field,
    s.first_index,
    CASE
        WHEN s.last_index < $2::bigint THEN s.last_index
        ELSE coalesce(
            (
                SELECT max(d.index)
                FROM taskcast.delta d
                WHERE d.task = s.task AND d.index >= $3::bigint AND d.index < $2::bigint AND d.series = s.id
            ),
            (
                SELECT p.last_index
                FROM taskcast.piece p
                WHERE p.task = s.task AND p.series = s.id AND p.height = 0 AND p.ordinal < $4::bigint
                ORDER BY p.ordinal DESC
                LIMIT 1
            )
        )
    END AS "last_index!"
FROM taskcast.series s
WHERE s.task = $1 AND s.mode = 1 AND s.first_index < $2::bigint
