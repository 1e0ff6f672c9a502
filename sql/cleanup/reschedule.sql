-- Notes where a rule goes on, and when.
UPDATE taskcast.cleanup SET next_index = $3, due_at = $4 WHERE task = $1 AND rule = $2
