-- Asked for again and again rather than waited for: a waiting session would
-- hold a snapshot, and deadlock with index builds that wait for old snapshots.
SELECT pg_try_advisory_lock($1) AS "locked!"
