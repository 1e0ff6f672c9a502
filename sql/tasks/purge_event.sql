-- A bounded chunk of what a deleted task left behind.
DELETE FROM taskcast.event
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.event x WHERE x.task = $1 LIMIT $2))
