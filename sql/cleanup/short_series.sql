-- Accumulate series of finished tasks with short logs, which are rolled up,
-- with the age of their newest delta.
SELECT s.task AS "task!", s.id AS "id!", s.event_type AS "event_type!", s.level AS "level!", s.at
FROM unnest($1::bigint[]) AS w (task)
CROSS JOIN LATERAL (
    SELECT
        x.task, x.id, x.type AS event_type, x.level,
        (
            SELECT e.at
            FROM taskcast.event e
            WHERE e.task = x.task
                AND e.index = (
                    SELECT c.last_index
                    FROM taskcast.text_chunk c
                    WHERE c.task = x.task AND c.series = x.id AND c.height = 0 AND c.ordinal = 0
                )
        ) AS at
    FROM taskcast.series x
    WHERE x.task = w.task AND x.mode = 1
    OFFSET 0
) s
