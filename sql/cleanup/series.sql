-- Accumulate series of a finished task, with the age of their newest delta.
SELECT s.id, s.type AS event_type, s.level, e.at AS "at?"
FROM taskcast.series s
LEFT JOIN taskcast.event e
    ON e.task = s.task
    AND e.index = (
        SELECT c.last_index
        FROM taskcast.text_chunk c
        WHERE c.task = s.task AND c.series = s.id AND c.height = 0
        ORDER BY c.ordinal DESC
        LIMIT 1
    )
WHERE s.task = $1 AND s.mode = 1
