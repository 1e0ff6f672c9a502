-- Which run of which server answers: changes with a restart, a failover and a
-- restore.
SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS "started_at!"
