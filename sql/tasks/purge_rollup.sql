-- A bounded chunk of what a deleted task left behind.
DELETE FROM taskcast.rollup
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.rollup x WHERE x.task = $1 LIMIT $2))
