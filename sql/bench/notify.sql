-- A notification alone. Each is another text: equal ones would be merged.
SELECT pg_notify('taskcast_bench', $1::bigint || ' ' || $2::bigint)
