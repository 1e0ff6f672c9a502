-- The last of a deleted task.
WITH gone AS (
    DELETE FROM taskcast.task WHERE number = $1 AND deleted_at IS NOT NULL RETURNING number
)
DELETE FROM taskcast.head USING gone WHERE head.task = gone.number
