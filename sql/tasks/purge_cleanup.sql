-- A bounded chunk of what a deleted task left behind.
DELETE FROM taskcast.cleanup
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.cleanup x WHERE x.task = $1 LIMIT $2))
