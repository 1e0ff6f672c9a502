-- Ends tasks for good: frees their ids and closes their heads to every writer.
WITH
target AS MATERIALIZED (
    SELECT h.task, h.next_index
    FROM taskcast.head h
    WHERE h.status <> 9
        AND h.task IN (
            SELECT t.number FROM taskcast.task t WHERE t.number = ANY ($3::bigint[]) AND t.deleted_at IS NULL
        )
    -- Key order, like every other writer.
    ORDER BY h.task
    FOR NO KEY UPDATE OF h
),
-- A journal entry without events: readers who see it look at the head.
receipt AS (
    INSERT INTO taskcast.receipt (lane, batch, at, task, from_index, next_index, moved_at)
    SELECT
        $1::bigint,
        $2::bigint,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        coalesce(array_agg(task ORDER BY task), '{}'),
        coalesce(array_agg(next_index ORDER BY task), '{}'),
        coalesce(array_agg(next_index ORDER BY task), '{}'),
        '{}'
    FROM target
    ON CONFLICT (lane, batch) DO NOTHING
    RETURNING batch
),
closed AS (
    UPDATE taskcast.head h
    SET status = 9, deadline = NULL
    FROM target, receipt
    WHERE h.task = target.task
    RETURNING h.task, h.next_index
),
freed AS (
    UPDATE taskcast.task t
    SET deleted_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM closed
    WHERE t.number = closed.task
    RETURNING t.number, t.id
)
SELECT r.batch AS "batch!", f.number AS "number?", f.id AS "id?", c.next_index AS "next_index?"
FROM receipt r
LEFT JOIN (freed f JOIN closed c ON c.task = f.number) ON true
