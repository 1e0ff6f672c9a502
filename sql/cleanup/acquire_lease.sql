-- Takes a lease, or keeps it. Says whether it is the caller's, and the rules of
-- another instance that holds the lease $5 at this moment.
WITH taken AS (
    INSERT INTO taskcast.lease AS l (name, holder, until, rules)
    VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3::bigint, $4)
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, until = excluded.until, rules = excluded.rules
    WHERE l.holder = excluded.holder
        OR l.until < (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    RETURNING l.holder
)
SELECT
    EXISTS (SELECT FROM taken) AS "is_ours!",
    (
        SELECT o.rules
        FROM taskcast.lease o
        WHERE o.name = $5::text
            AND o.holder <> $2
            AND o.until >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    ) AS others_rules
