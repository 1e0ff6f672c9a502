-- Deletes tasks: frees their ids and closes their heads to every writer. An
-- append that began before this committed may still add events, which no
-- reader sees; they are purged with the rest, which waits longer than that.
WITH
target AS MATERIALIZED (
    SELECT
        h.task,
        coalesce(
            h.end_index,
            (SELECT e.index + 1 FROM taskcast.event e WHERE e.task = h.task ORDER BY e.index DESC LIMIT 1),
            0
        ) AS next_index
    FROM taskcast.head h
    WHERE h.status <> 9
        AND h.task IN (
            SELECT t.number FROM taskcast.task t WHERE t.number = ANY ($3::bigint[]) AND t.deleted_at IS NULL
        )
    -- Heads ascending, like every other writer.
    ORDER BY h.task
    FOR NO KEY UPDATE OF h
),
-- A journal entry without events: readers who see it look at the head.
receipt AS (
    INSERT INTO taskcast.receipt (lane, batch, at, task, from_index, next_index)
    SELECT
        $1::bigint,
        $2::bigint,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        coalesce(array_agg(task ORDER BY task), '{}'),
        coalesce(array_agg(next_index ORDER BY task), '{}'),
        coalesce(array_agg(next_index ORDER BY task), '{}')
    FROM target
    HAVING EXISTS (SELECT FROM taskcast.lane l WHERE l.lane = $1::bigint)
    ON CONFLICT (lane, batch) DO NOTHING
    RETURNING batch
),
closed AS (
    UPDATE taskcast.head h
    SET status = 9, deadline = NULL
    FROM target, receipt
    WHERE h.task = target.task
    RETURNING h.task
),
freed AS (
    UPDATE taskcast.task t
    SET deleted_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM closed
    WHERE t.number = closed.task
    RETURNING t.number
)
SELECT
    EXISTS (SELECT FROM taskcast.lane l WHERE l.lane = $1::bigint) AS "is_registered!",
    (SELECT r.batch FROM receipt r) AS batch,
    (SELECT array_agg(f.number) FROM freed f) AS numbers
