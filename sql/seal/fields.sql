-- The text field of these accumulate series.
SELECT s.id, s.field FROM taskcast.series s WHERE s.task = $1 AND s.id = ANY ($2::text[])
