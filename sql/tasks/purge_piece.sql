-- A bounded bite of what a deleted task left behind.
DELETE FROM taskcast.piece
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.piece x WHERE x.task = $1 LIMIT $2))
