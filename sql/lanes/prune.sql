-- Drops receipts nobody needs any more; old batches of one lane lie together.
DELETE FROM taskcast.receipt
WHERE lane = $1
    AND batch <= $2
    AND at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $3::bigint
