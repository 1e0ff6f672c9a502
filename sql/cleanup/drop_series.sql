-- Makes accumulate series vanish for readers at one moment; their deltas,
-- which nothing names then, go in chunks.
WITH
doomed AS MATERIALIZED (
    SELECT d.task, d.series FROM unnest($1::bigint[], $2::text[]) AS d (task, series)
),
chunks AS (
    DELETE FROM taskcast.text_chunk
    WHERE ctid = ANY (ARRAY(
        SELECT x.ctid
        FROM doomed d
        CROSS JOIN LATERAL (
            SELECT c.ctid FROM taskcast.text_chunk c WHERE c.task = d.task AND c.series = d.series OFFSET 0
        ) x
    ))
)
DELETE FROM taskcast.series
WHERE ctid = ANY (ARRAY(
    SELECT x.ctid
    FROM doomed d
    CROSS JOIN LATERAL (
        SELECT s.ctid FROM taskcast.series s WHERE s.task = d.task AND s.id = d.series AND s.mode = 1 OFFSET 0
    ) x
))
