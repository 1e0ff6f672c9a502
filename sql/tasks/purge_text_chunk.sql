-- A bounded chunk of what a deleted task left behind.
DELETE FROM taskcast.text_chunk
WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM taskcast.text_chunk x WHERE x.task = $1 LIMIT $2))
