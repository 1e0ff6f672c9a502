-- Notes that these lanes are alive; says for which of them there is still a
-- registration.
WITH noted AS (
    INSERT INTO taskcast.lane_heartbeat AS b (lane, seen_at)
    SELECT l.lane, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM taskcast.lane l
    WHERE l.lane = ANY ($1::bigint[])
    ON CONFLICT (lane) DO UPDATE SET seen_at = excluded.seen_at
    RETURNING b.lane
)
SELECT lane FROM noted
