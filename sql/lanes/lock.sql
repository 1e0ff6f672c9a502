-- Holds the heads of these tasks to the end of the transaction, in key order
-- like every other writer.
SELECT h.task
FROM taskcast.head h
WHERE h.task IN (
    SELECT t.number FROM taskcast.task t WHERE t.id = ANY ($1::text[]) AND t.deleted_at IS NULL
)
ORDER BY h.task
FOR NO KEY UPDATE OF h
