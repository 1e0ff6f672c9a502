-- Drops receipts nobody needs any more, a bounded number, and says which was
-- the last. Begins behind those that were dropped before: under an old
-- snapshot their index entries are still there.
WITH gone AS (
    DELETE FROM taskcast.receipt
    WHERE lane = $1
        AND batch > $2
        AND batch <= $3
        AND at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $4::bigint
    RETURNING batch
)
SELECT max(batch) FROM gone
