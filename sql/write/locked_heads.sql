-- Which of these tasks have heads that somebody else holds. Those that nobody
-- does are locked to find out, for as long as the statement takes.
WITH free AS MATERIALIZED (
    SELECT h.task
    FROM taskcast.head h
    WHERE h.task IN (
        SELECT t.number FROM taskcast.task t WHERE t.id = ANY ($1::text[]) AND t.deleted_at IS NULL
    )
    -- Nobody is waited for, so the order does not matter.
    FOR NO KEY UPDATE OF h SKIP LOCKED
)
SELECT t.id
FROM taskcast.task t
WHERE t.id = ANY ($1::text[])
    AND t.deleted_at IS NULL
    AND NOT EXISTS (SELECT FROM free f WHERE f.task = t.number)
