-- Removes what is left of lanes that were retired $1 milliseconds ago.
WITH gone AS (
    DELETE FROM taskcast.retired_lane
    WHERE at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1::bigint
    RETURNING lane
)
DELETE FROM taskcast.receipt USING gone WHERE receipt.lane = gone.lane
