-- A bounded bite of what a deleted task left behind.
DELETE FROM taskcast.survivor
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.survivor x WHERE x.task = $1 LIMIT $2))
