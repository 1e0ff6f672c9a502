-- The last of deleted tasks.
WITH
gone AS (
    DELETE FROM taskcast.task
    WHERE ctid = ANY (ARRAY(
        SELECT x.ctid
        FROM unnest($1::bigint[]) AS w (number)
        CROSS JOIN LATERAL (
            -- The number alone, or the index of deleted tasks would be read whole.
            SELECT t.ctid, t.deleted_at FROM taskcast.task t WHERE t.number = w.number OFFSET 0
        ) x
        WHERE x.deleted_at IS NOT NULL
    ))
    RETURNING number, tags
),
untagged AS (
    DELETE FROM taskcast.task_tag x
    USING (SELECT g.number, unnest(g.tags) AS tag FROM gone g) d
    WHERE x.tag = d.tag AND x.task = d.number
)
DELETE FROM taskcast.head USING gone WHERE head.task = gone.number
