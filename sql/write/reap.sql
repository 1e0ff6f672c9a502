-- Retires lanes whose process is gone: no heartbeat and no receipt for $1
-- milliseconds. From now on their appends find no registration and write
-- nothing; one that found it still may commit, so receipts stay readable.
WITH
silent AS (
    SELECT b.lane
    FROM taskcast.lane_heartbeat b
    WHERE b.seen_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1::bigint
        AND coalesce((
            SELECT r.at FROM taskcast.receipt r WHERE r.lane = b.lane ORDER BY r.batch DESC LIMIT 1
        ), 0) < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1::bigint
),
gone AS (
    DELETE FROM taskcast.lane l USING silent s WHERE l.lane = s.lane RETURNING l.lane
),
forgotten AS (
    DELETE FROM taskcast.lane_heartbeat b USING silent s WHERE b.lane = s.lane
)
INSERT INTO taskcast.retired_lane (lane, at)
SELECT g.lane, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
FROM gone g
ON CONFLICT DO NOTHING
