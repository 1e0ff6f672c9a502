-- A chunk of the texts of deleted tasks, bounded in rows and in bytes: large values
-- are many rows of their own. One row always goes. Says how many were in reach.
WITH
chunk AS MATERIALIZED (
    SELECT u.ctid, sum(u.bytes) OVER (ROWS UNBOUNDED PRECEDING) - u.bytes AS bytes_before
    FROM (
        SELECT x.ctid, octet_length(x.body) AS bytes
        FROM unnest($1::bigint[]) AS gone (task)
        CROSS JOIN LATERAL (
            SELECT o.ctid, o.body FROM taskcast.text_chunk o WHERE o.task = gone.task OFFSET 0
        ) x
        LIMIT $2
    ) u
),
removed AS (
    DELETE FROM taskcast.text_chunk
    WHERE ctid = ANY (ARRAY(SELECT c.ctid FROM chunk c WHERE c.bytes_before < $3::bigint))
    RETURNING task
)
SELECT (SELECT count(*) FROM removed) AS "removed!", (SELECT count(*) FROM chunk) AS "seen!"
