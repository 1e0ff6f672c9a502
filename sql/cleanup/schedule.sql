-- Schedules cleanup rules for finished tasks. Rules of the configuration that
-- no longer apply are dropped. No rule acts sooner than $6 milliseconds after
-- the task was seen to be finished: an append that began before it was is over
-- by then, and can take no place that cleanup has made.
WITH
scheduled AS (
    UPDATE taskcast.head h
    SET scheduled_rules = $1
    FROM (
        SELECT x.task
        FROM taskcast.head x
        WHERE x.task = ANY ($2::bigint[]) AND x.status BETWEEN 2 AND 5
        ORDER BY x.task
        FOR NO KEY UPDATE
    ) l
    WHERE h.task = l.task
    RETURNING h.task
),
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
due AS MATERIALIZED (
    SELECT d.task, d.rule, greatest(d.due_at, (SELECT now FROM clock) + $6::bigint) AS due_at
    FROM unnest($3::bigint[], $4::text[], $5::bigint[]) AS d (task, rule, due_at)
    JOIN scheduled s ON s.task = d.task
),
forgotten AS (
    DELETE FROM taskcast.cleanup c
    USING scheduled s
    WHERE c.task = s.task AND NOT EXISTS (SELECT FROM due d WHERE d.task = c.task AND d.rule = c.rule)
)
INSERT INTO taskcast.cleanup (task, rule, due_at)
SELECT d.task, d.rule, d.due_at
FROM due d
ON CONFLICT (task, rule) DO NOTHING
