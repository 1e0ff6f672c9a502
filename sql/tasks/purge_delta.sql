-- A bounded bite of what a deleted task left behind.
DELETE FROM taskcast.delta
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.delta x WHERE x.task = $1 LIMIT $2))
