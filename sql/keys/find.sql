-- What earlier requests with these keys did.
SELECT key, request, task, task_id, first_index, at
FROM taskcast.idempotency
WHERE key = ANY ($1::bytea[])
