-- Makes room for what is written at the reserved indexes. Until the
-- transaction ends, other writers still wait for it there.
DELETE FROM taskcast.event e
USING unnest($1::bigint[], $2::bigint[]) AS r (task, index)
WHERE e.task = r.task AND e.index = r.index AND e.level = -1
