-- Registers a lane; committed before its first batch, so that readers of the
-- journal know it. Repeated after a lost reply it changes nothing.
WITH registered AS (
    INSERT INTO taskcast.lane (lane) VALUES ($1) ON CONFLICT DO NOTHING
)
INSERT INTO taskcast.lane_heartbeat (lane, seen_at)
VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
ON CONFLICT DO NOTHING
