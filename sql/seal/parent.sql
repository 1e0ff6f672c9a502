-- Sums up neighbours of one height as a node of the next.
WITH
node AS (
    INSERT INTO taskcast.node (task, height, ordinal, kinds)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT (task, height, ordinal) DO NOTHING
    RETURNING task
)
INSERT INTO taskcast.piece (task, series, height, ordinal, last_index, body)
SELECT n.task, p.series, $2, $3, max(p.last_index), string_agg(p.body, '' ORDER BY p.ordinal)
FROM node n
JOIN taskcast.piece p
    ON p.task = n.task
    AND p.height = $2 - 1
    AND p.ordinal >= $5::bigint
    AND p.ordinal < $6::bigint
GROUP BY n.task, p.series
