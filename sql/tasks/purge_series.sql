-- A bounded chunk of what a deleted task left behind.
DELETE FROM taskcast.series
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.series x WHERE x.task = $1 LIMIT $2))
