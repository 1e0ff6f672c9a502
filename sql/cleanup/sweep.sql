-- Notes which rules hold for finished tasks. Rules of the configuration that
-- no longer hold are forgotten.
WITH
swept AS (
    UPDATE taskcast.head h
    SET swept = $1
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
due AS MATERIALIZED (
    SELECT d.task, d.rule, d.due_at
    FROM unnest($3::bigint[], $4::text[], $5::bigint[]) AS d (task, rule, due_at)
    JOIN swept s ON s.task = d.task
),
forgotten AS (
    DELETE FROM taskcast.cleanup c
    USING swept s
    WHERE c.task = s.task AND NOT EXISTS (SELECT FROM due d WHERE d.task = c.task AND d.rule = c.rule)
)
INSERT INTO taskcast.cleanup (task, rule, due_at)
SELECT d.task, d.rule, d.due_at
FROM due d
ON CONFLICT (task, rule) DO NOTHING
