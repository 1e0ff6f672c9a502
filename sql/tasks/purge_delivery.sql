-- A bounded chunk of what a deleted task left behind.
DELETE FROM taskcast.delivery
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.delivery x WHERE x.task = $1 LIMIT $2))
