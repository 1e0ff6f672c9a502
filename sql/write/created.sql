-- Which of these tasks are there after a lost reply: the nonce says whose.
SELECT t.number, t.nonce, t.created_at
FROM unnest($1::text[], $2::bigint[]) AS i (id, nonce)
JOIN taskcast.task t ON t.id = i.id AND t.nonce = i.nonce
WHERE t.deleted_at IS NULL
