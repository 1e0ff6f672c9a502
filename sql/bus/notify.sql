SELECT pg_notify('taskcast', payload) FROM unnest($1::text[]) AS p (payload)
