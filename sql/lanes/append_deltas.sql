-- Carries out one batch of nothing but deltas to series that are there: the
-- tokens of answers that are being written. What append.sql would do, for
-- batches in which no state changes, nothing is owed and nothing has a key.
WITH
-- The order point, and the only lock. The version it is conditional on covers
-- the series too: they change, and go, only together with their head.
moved AS (
    UPDATE taskcast.head h
    SET
        next_index = t.next_index,
        last_at = greatest(h.last_at, (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint))
    FROM unnest($3::bigint[], $4::bigint[], $5::smallint[], $6::bigint[])
        AS t (task, seen_index, seen_status, next_index)
    WHERE h.task = t.task AND h.next_index = t.seen_index AND h.status = t.seen_status
    RETURNING h.task, t.seen_index, h.next_index, h.last_at AS at
),
deltas AS (
    INSERT INTO taskcast.delta (task, index, at, level, mode, type, series, field, data)
    SELECT e.task, e.index, m.at, e.level, e.mode, e.type, e.series, e.field, e.data
    FROM unnest(
        $7::bigint[], $8::bigint[], $9::smallint[], $10::smallint[], $11::text[], $12::text[],
        $13::text[], $14::text[]
    ) AS e (task, index, level, mode, type, series, field, data)
    JOIN moved m ON m.task = e.task
),
-- States are absolute: the head's version proved what they were judged from.
folded AS (
    UPDATE taskcast.series s
    SET field = i.field, last_index = i.last_index, text_bytes = i.text_bytes
    FROM unnest($15::bigint[], $16::text[], $17::text[], $18::bigint[], $19::bigint[])
        AS i (task, id, field, last_index, text_bytes)
    JOIN moved m ON m.task = i.task
    WHERE s.task = i.task AND s.id = i.id
)
-- A batch that was sent again after a lost reply finds its receipt here, and
-- gives no row. What moved is in the receipt, so it is the answer too.
INSERT INTO taskcast.receipt (lane, batch, at, task, from_index, next_index, moved_at)
SELECT
    $1::bigint,
    $2::bigint,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    coalesce(array_agg(m.task), '{}'),
    coalesce(array_agg(m.seen_index), '{}'),
    coalesce(array_agg(m.next_index), '{}'),
    coalesce(array_agg(m.at), '{}')
FROM moved m
ON CONFLICT (lane, batch) DO NOTHING
RETURNING task, moved_at
