-- Takes a lease, or keeps it; no row when another holds it.
INSERT INTO taskcast.lease AS l (name, holder, until)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3::bigint)
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, until = excluded.until
WHERE l.holder = excluded.holder
    OR l.until < (extract(epoch FROM clock_timestamp()) * 1000)::bigint
RETURNING holder
