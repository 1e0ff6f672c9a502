-- Rolls up neighbours of one height as a roll-up of the next.
WITH
rollup AS (
    INSERT INTO taskcast.rollup (task, height, ordinal, kinds)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT (task, height, ordinal) DO NOTHING
    RETURNING task
)
INSERT INTO taskcast.text_chunk (task, series, height, ordinal, last_index, body)
SELECT r.task, c.series, $2, $3, max(c.last_index), string_agg(c.body, '' ORDER BY c.ordinal)
FROM rollup r
JOIN taskcast.text_chunk c
    ON c.task = r.task
    AND c.height = $2 - 1
    AND c.ordinal >= $5::bigint
    AND c.ordinal < $6::bigint
GROUP BY r.task, c.series
