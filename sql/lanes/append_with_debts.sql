-- Carries out one batch of judged writes: everything a task gains, or nothing.
-- What is marked stands only here; append.sql is the rest, for batches that owe
-- webhooks nothing and have no keys: even untouched, two more tables cost every
-- batch a tenth.
WITH
-- One row per task, sorted by task: how the lane saw its head, and how the
-- head shall be.
target AS MATERIALIZED (
    SELECT t.*, (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now
    FROM unnest(
        $3::bigint[], $4::bigint[], $5::smallint[], $6::bigint[], $7::smallint[], $8::boolean[]
    ) AS t (task, seen_index, seen_status, next_index, status, has_transition)
),
-- The order point, and the only lock. Heads move in the order of the list,
-- which is key order; one that another writer moved since the lane saw it, or
-- that the first copy of this batch moved, drops out here, with all that
-- depends on it. After a wait the newest version decides.
moved AS (
    UPDATE taskcast.head h
    SET
        next_index = t.next_index,
        status = t.status,
        last_at = greatest(h.last_at, t.now),
        updated_at = CASE WHEN t.has_transition THEN greatest(h.last_at, t.now) ELSE h.updated_at END,
        -- States from 2 on are terminal; a finished task has no deadline.
        deadline = CASE WHEN t.status >= 2 THEN NULL ELSE h.deadline END
    FROM target t
    WHERE h.task = t.task AND h.next_index = t.seen_index AND h.status = t.seen_status
        -- only with debts: begin
        -- A key that is there already: what it did is answered instead. Who
        -- stored it moved the head, so the head's version covers this, too.
        AND (
            cardinality($35::bigint[]) = 0
            OR NOT EXISTS (
                SELECT
                FROM unnest($35::bigint[], $36::bytea[]) AS k (task, key)
                -- The limit keeps the planner from reading the whole table.
                CROSS JOIN LATERAL (
                    SELECT FROM taskcast.idempotency i WHERE i.key = k.key LIMIT 1
                ) stored
                WHERE k.task = t.task
            )
        )
        -- only with debts: end
    RETURNING h.task, t.seen_index, h.next_index, h.last_at AS at
),
-- A batch that was sent again after a lost reply finds its receipt here.
receipt AS (
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
    RETURNING batch
),
entry AS MATERIALIZED (
    SELECT e.task, e.index, m.at, e.level, e.mode, e.type, e.series, e.field, e.data, e.is_delta
    FROM unnest(
        $9::bigint[], $10::bigint[], $11::smallint[], $12::smallint[], $13::text[], $14::text[],
        $15::text[], $16::text[], $17::boolean[]
    ) AS e (task, index, level, mode, type, series, field, data, is_delta)
    JOIN moved m ON m.task = e.task
),
plain AS (
    INSERT INTO taskcast.event (task, index, at, level, mode, type, series, field, data)
    SELECT task, index, at, level, mode, type, series, field, data FROM entry WHERE NOT is_delta
),
deltas AS (
    INSERT INTO taskcast.delta (task, index, at, level, mode, type, series, field, data)
    SELECT task, index, at, level, mode, type, series, field, data FROM entry WHERE is_delta
),
-- States are absolute: the head's version proved what they were judged from.
folded AS (
    INSERT INTO taskcast.series AS s (
        task, id, mode, level, type, named_field, field, first_index, last_index, text_bytes
    )
    SELECT i.task, i.id, i.mode, i.level, i.type, i.named_field, i.field, i.first_index, i.last_index, i.text_bytes
    FROM unnest(
        $18::bigint[], $19::text[], $20::smallint[], $21::smallint[], $22::text[], $23::text[],
        $24::text[], $25::bigint[], $26::bigint[], $27::bigint[]
    ) AS i (task, id, mode, level, type, named_field, field, first_index, last_index, text_bytes)
    JOIN moved m ON m.task = i.task
    ON CONFLICT (task, id) DO UPDATE
    SET field = excluded.field, last_index = excluded.last_index, text_bytes = excluded.text_bytes
),
outcome AS (
    UPDATE taskcast.task t
    SET result = coalesce(o.result, t.result), error = coalesce(o.error, t.error)
    FROM unnest($28::bigint[], $29::text[], $30::text[]) AS o (task, result, error)
    JOIN moved m ON m.task = o.task
    WHERE t.number = o.task
)
-- only with debts: begin
,
owed AS (
    INSERT INTO taskcast.delivery (task, index, hook, receiver, at, next_at, updated_at)
    SELECT o.task, o.index, o.hook, o.receiver, m.at, m.at, m.at
    FROM unnest($31::bigint[], $32::bigint[], $33::text[], $34::bigint[]) AS o (task, index, hook, receiver)
    JOIN moved m ON m.task = o.task
),
keyed AS (
    INSERT INTO taskcast.idempotency (key, request, task, first_index, at)
    SELECT k.key, k.request, k.task, k.first_index, m.at
    FROM unnest($35::bigint[], $36::bytea[], $37::bytea[], $38::bigint[]) AS k (task, key, request, first_index)
    JOIN moved m ON m.task = k.task
)
-- only with debts: end
-- No row at all: the receipt was there before.
SELECT r.batch AS "batch!", m.task AS "task?", m.at AS "at?"
FROM receipt r
LEFT JOIN moved m ON true
