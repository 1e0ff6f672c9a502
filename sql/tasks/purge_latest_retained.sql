-- A bounded chunk of what a deleted task left behind.
DELETE FROM taskcast.latest_retained
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.latest_retained x WHERE x.task = $1 LIMIT $2))
