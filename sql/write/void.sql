-- Spends a batch number on nothing. Waits for a copy of the batch that is
-- still under way.
INSERT INTO taskcast.receipt (lane, batch, at, task, from_index, next_index)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, '{}', '{}', '{}')
ON CONFLICT DO NOTHING
