-- Says that these lanes are alive.
UPDATE taskcast.lane
SET seen_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
WHERE lane = ANY ($1::bigint[])
