-- A new writer lane; committed before its first batch, so that readers of the
-- journal know it.
INSERT INTO taskcast.lane (seen_at)
VALUES ((extract(epoch FROM clock_timestamp()) * 1000)::bigint)
RETURNING lane
