-- Removes lanes whose process is gone, with their receipts.
WITH gone AS (
    DELETE FROM taskcast.lane
    WHERE seen_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1::bigint
    RETURNING lane
)
DELETE FROM taskcast.receipt USING gone WHERE receipt.lane = gone.lane
