-- Carries out one batch: all of it, or nothing. Inserts only, transitions
-- apart. The primary key of the log is the concurrency check: if another
-- writer was there first, the key is violated and the batch did not happen.
--
-- What is marked stands only here. append_events.sql is the rest, for batches
-- of nothing but events: every table that a statement could write to costs
-- each batch, also where it has nothing to write there. A test compares them.
--
-- Order, in every statement that writes: heads ascending, receipt, idempotency
-- keys ascending, log ascending, outbox. The order is by reference, since CTEs
-- that nobody refers to run last in the text first.
WITH
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
-- What the batch is based on. Heads are read, not locked: a status, a floor or
-- a deletion is committed before the rows go that it exposes, and they stay
-- longer than this statement may run (see REMOVAL_DELAY).
guard AS MATERIALIZED (
    SELECT
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint = $3::bigint AS is_server,
        EXISTS (SELECT FROM taskcast.lane l WHERE l.lane = $1::bigint) AS is_registered,
        (
            SELECT count(*)
            FROM unnest($4::bigint[], $5::bigint[], $7::smallint[]) AS t (task, from_index, seen_status)
            -- OFFSET makes it an index scan by key, however the plan was made.
            CROSS JOIN LATERAL (
                SELECT FROM taskcast.head h
                WHERE h.task = t.task AND h.status = t.seen_status AND h.floor <= t.from_index
                OFFSET 0
            ) h
        ) = cardinality($4) AS is_current
),
-- only with more: begin
moved AS (
    UPDATE taskcast.head h
    SET
        status = t.status,
        updated_at = greatest(t.floor_at, (SELECT now FROM clock)),
        -- States from 2 on are terminal; a finished task has no deadline.
        deadline = CASE WHEN t.status >= 2 THEN NULL ELSE h.deadline END,
        end_index = CASE WHEN t.status >= 2 THEN t.next_index END,
        result = coalesce(t.result, h.result),
        error = coalesce(t.error, h.error)
    FROM unnest(
        $19::bigint[], $20::smallint[], $21::bigint[], $22::smallint[], $23::bigint[], $24::bigint[], $25::text[],
        $26::text[]
    ) AS t (task, seen_status, from_index, status, next_index, floor_at, result, error)
    WHERE h.task = t.task
        AND h.status = t.seen_status
        AND h.floor <= t.from_index
        AND (SELECT g.is_server AND g.is_registered AND g.is_current FROM guard g)
    RETURNING h.task, h.status, h.updated_at, h.result, h.error
),
-- only with more: end
-- A batch that is sent again after a lost reply finds its receipt here, before
-- it gets to the log.
receipt AS (
    INSERT INTO taskcast.receipt (lane, batch, at, task, from_index, next_index)
    SELECT $1::bigint, $2::bigint, c.now, $4, $5, $6::bigint[]
    FROM guard g, clock c
    WHERE g.is_server AND g.is_registered AND g.is_current
        -- only with more: begin
        -- A head that changed since it was read: a status event without its
        -- transition must not stay.
        AND CASE
            WHEN NOT (g.is_server AND g.is_registered AND g.is_current) THEN false
            WHEN (SELECT count(*) FROM moved) = cardinality($19) THEN true
            ELSE taskcast.write_conflict()
        END
        -- only with more: end
    RETURNING at
),
-- only with more: begin
keyed AS (
    INSERT INTO taskcast.idempotency (key, request, task, first_index, at)
    SELECT k.key, k.request, k.task, k.first_index, greatest(k.floor_at, r.at)
    FROM receipt r
    CROSS JOIN unnest($27::bytea[], $28::bytea[], $29::bigint[], $30::bigint[], $31::bigint[])
        AS k (key, request, task, first_index, floor_at)
    RETURNING 1
),
-- only with more: end
logged AS (
    INSERT INTO taskcast.event (task, index, at, level, mode, type, series, field, member, text_bytes, data)
    SELECT
        e.task, e.index, greatest(e.floor_at, r.at), e.level, e.mode, e.type, e.series, e.field, e.member,
        e.text_bytes, e.data
    FROM receipt r
    CROSS JOIN unnest(
        $8::bigint[], $9::bigint[], $10::bigint[], $11::smallint[], $12::smallint[], $13::text[], $14::text[],
        $15::text[], $16::text[], $17::bigint[], $18::text[]
    ) AS e (task, index, floor_at, level, mode, type, series, field, member, text_bytes, data)
    -- only with more: begin
    WHERE cardinality($27) = 0 OR (SELECT count(*) FROM keyed) = cardinality($27)
    -- only with more: end
)
-- only with more: begin
,
opened AS (
    INSERT INTO taskcast.series (task, id, mode, level, type, named_field, first_index)
    SELECT s.task, s.id, s.mode, s.level, s.type, s.named_field, s.first_index
    FROM receipt r
    CROSS JOIN unnest(
        $32::bigint[], $33::text[], $34::smallint[], $35::smallint[], $36::text[], $37::text[], $38::bigint[]
    ) AS s (task, id, mode, level, type, named_field, first_index)
),
owed AS (
    INSERT INTO taskcast.delivery (task, index, hook, receiver, at, next_at, updated_at)
    SELECT
        o.task, o.index, o.hook, o.receiver, greatest(o.floor_at, r.at), greatest(o.floor_at, r.at),
        greatest(o.floor_at, r.at)
    FROM receipt r
    CROSS JOIN unnest($39::bigint[], $40::bigint[], $41::text[], $42::bigint[], $43::bigint[])
        AS o (task, index, hook, receiver, floor_at)
)
-- only with more: end
SELECT
    g.is_server AS "is_server!",
    g.is_registered AS "is_registered!",
    (SELECT r.at FROM receipt r) AS at
    -- only with more: begin
    ,
    -- The tasks that changed their state, one a row.
    d.number AS "number?",
    d.id AS "id?",
    d.type AS task_type,
    d.tags,
    d.params,
    d.metadata,
    d.result,
    d.error,
    d.ttl_seconds,
    d.created_at AS "created_at?",
    d.auth_config,
    d.webhooks,
    d.cleanup,
    d.status AS "status?",
    d.updated_at AS "updated_at?"
    -- only with more: end
FROM guard g
-- only with more: begin
LEFT JOIN (
    SELECT t.*, m.status, m.updated_at, m.result, m.error
    FROM moved m
    CROSS JOIN LATERAL (SELECT x.* FROM taskcast.task x WHERE x.number = m.task OFFSET 0) t
) d ON true
-- only with more: end
