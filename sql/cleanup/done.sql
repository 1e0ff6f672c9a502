-- Rules have nothing left to do for tasks.
DELETE FROM taskcast.cleanup c
USING unnest($1::bigint[], $2::text[]) AS d (task, rule)
WHERE c.task = d.task AND c.rule = d.rule
