-- Carries removals out. What is still owed to a webhook stays; no reader sees
-- it.
WITH due AS (
    DELETE FROM taskcast.removal WHERE id = ANY ($1::bigint[]) RETURNING task, index
)
DELETE FROM taskcast.event e
USING (SELECT d.task, unnest(d.index) AS index FROM due d) x
WHERE e.task = x.task
    AND e.index = x.index
    AND NOT EXISTS (
        SELECT FROM taskcast.delivery d WHERE d.task = e.task AND d.index = e.index AND d.state = 0
    )
