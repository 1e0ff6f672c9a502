-- The tasks that have one of these ids.
SELECT t.number
FROM taskcast.task t
WHERE t.id = ANY ($1::text[]) AND t.deleted_at IS NULL
