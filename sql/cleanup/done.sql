-- A rule has nothing left to do for a task.
DELETE FROM taskcast.cleanup WHERE task = $1 AND rule = $2
