-- Makes accumulate series vanish for readers at one moment; their deltas,
-- which nothing names then, go in bites.
WITH
pieces AS (
    DELETE FROM taskcast.piece p WHERE p.task = $1 AND p.series = ANY ($2::text[])
)
DELETE FROM taskcast.series s WHERE s.task = $1 AND s.mode = 1 AND s.id = ANY ($2::text[])
