-- What waits, counted up to $1 of each: deleted tasks that are not purged, and
-- cleanup rules that are due.
SELECT
    (
        SELECT count(*)
        FROM (SELECT FROM taskcast.task t WHERE t.deleted_at IS NOT NULL LIMIT $1) d
    ) AS "deleted_tasks!",
    (
        SELECT count(*)
        FROM (
            SELECT
            FROM taskcast.cleanup c
            WHERE c.due_at <= (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
            LIMIT $1
        ) d
    ) AS "due_cleanups!"
