-- Cleans the short logs of many tasks by one rule; see chunk.sql. Says how
-- many events went, and for each task when the oldest that is too young was
-- stored. Subqueries that are evaluated for each row keep the planner from
-- reading whole tables once.
WITH
entry AS MATERIALIZED (
    SELECT
        x.*,
        x.is_delta AND (
            SELECT true FROM taskcast.series s WHERE s.task = x.task AND s.id = x.series LIMIT 1
        ) IS NULL AS is_orphan
    FROM unnest($1::bigint[]) AS w (task)
    CROSS JOIN LATERAL (
        SELECT
            e.ctid, e.task, e.at, e.level, e.mode, e.type, e.series,
            e.text_bytes IS NOT NULL AS is_delta
        FROM taskcast.event e
        WHERE e.task = w.task
        OFFSET 0
    ) x
),
removed AS (
    DELETE FROM taskcast.event
    WHERE ctid = ANY (ARRAY(
        SELECT e.ctid
        FROM entry e
        WHERE CASE
            WHEN e.is_delta THEN e.is_orphan
            ELSE e.at <= $2
                AND ($3::text[] IS NULL OR e.type LIKE ANY ($3))
                AND ($4::smallint[] IS NULL OR e.level = ANY ($4))
                AND ($5::smallint IS NULL OR e.mode = $5)
        END
    ))
    RETURNING task
),
young AS (
    SELECT e.task, min(e.at) AS at FROM entry e WHERE e.at > $2 GROUP BY e.task
)
SELECT w.task AS "task!", y.at AS "younger_at?", (SELECT count(*) FROM removed r) AS "removed!"
FROM unnest($1::bigint[]) AS w (task)
LEFT JOIN young y ON y.task = w.task
