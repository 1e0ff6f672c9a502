-- Makes accumulate series vanish for readers at one moment; their deltas,
-- which nothing names then, go in chunks.
WITH
chunks AS (
    DELETE FROM taskcast.text_chunk c WHERE c.task = $1 AND c.series = ANY ($2::text[])
)
DELETE FROM taskcast.series s WHERE s.task = $1 AND s.mode = 1 AND s.id = ANY ($2::text[])
