-- How far back the oldest snapshot reaches that somebody else holds: sessions
-- of this database, prepared transactions, and replication slots, which have no
-- time. Sessions of other roles show theirs to members of pg_read_all_stats.
SELECT
    coalesce((extract(epoch FROM clock_timestamp() - min(s.since)) * 1000)::bigint, 0) AS "age_ms!",
    coalesce(max(age(s.oldest)), 0)::bigint AS "transactions!"
FROM (
    SELECT a.xact_start AS since, a.backend_xmin AS oldest
    FROM pg_stat_activity a
    WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid() AND a.datname = current_database()
    UNION ALL
    SELECT p.prepared, p.transaction FROM pg_prepared_xacts p WHERE p.database = current_database()
    UNION ALL
    SELECT NULL, r.xmin FROM pg_replication_slots r WHERE r.xmin IS NOT NULL
) s
