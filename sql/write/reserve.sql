-- Reserves the next index of these tasks to the end of the transaction.
SELECT r.reserved_task AS "task!", r.reserved_index AS "index!"
FROM taskcast.reserve(
    ARRAY(SELECT t.number FROM taskcast.task t WHERE t.id = ANY ($1::text[]) AND t.deleted_at IS NULL)
) r
