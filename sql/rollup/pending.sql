-- Removals that are committed, oldest first, behind those that are done:
-- under an old snapshot their index entries are still there.
SELECT id FROM taskcast.removal WHERE id > $1 ORDER BY id LIMIT $2
