-- A bounded chunk of what deleted tasks left behind.
DELETE FROM taskcast.rollup
WHERE ctid = ANY (ARRAY(
    SELECT x.ctid
    FROM unnest($1::bigint[]) AS gone (task)
    CROSS JOIN LATERAL (SELECT o.ctid FROM taskcast.rollup o WHERE o.task = gone.task OFFSET 0) x
    LIMIT $2
))
