-- A bounded bite of what a deleted task left behind.
DELETE FROM taskcast.node
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.node x WHERE x.task = $1 LIMIT $2))
