-- Carries out a batch for tasks that other instances write to as well. Claims
-- the next index of each task; a task whose index is taken drops out with all
-- its requests, and the others are written. No transitions: a head would have
-- to be changed before its index is claimed.
WITH
clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
),
guard AS MATERIALIZED (
    SELECT
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint = $3::bigint AS is_server,
        EXISTS (SELECT FROM taskcast.lane l WHERE l.lane = $1::bigint) AS is_registered
),
-- As in append.sql: read, not locked.
ready AS MATERIALIZED (
    SELECT t.task, t.from_index, t.next_index
    FROM unnest($4::bigint[], $5::bigint[], $6::bigint[], $7::smallint[])
        AS t (task, from_index, next_index, seen_status)
    CROSS JOIN LATERAL (
        SELECT FROM taskcast.head h
        WHERE h.task = t.task AND h.status = t.seen_status AND h.floor <= t.from_index
        OFFSET 0
    ) h
    WHERE (SELECT g.is_server AND g.is_registered FROM guard g)
),
entry AS MATERIALIZED (
    SELECT e.*, e.index = r.from_index AS is_first
    FROM unnest(
        $8::bigint[], $9::bigint[], $10::bigint[], $11::smallint[], $12::smallint[], $13::text[], $14::text[],
        $15::text[], $16::text[], $17::bigint[], $18::text[]
    ) WITH ORDINALITY
        AS e (task, index, floor_at, level, mode, type, series, field, member, text_bytes, data, position)
    JOIN ready r ON r.task = e.task
),
-- In the order of the batch, which is ascending, like every writer of the log.
claimed AS (
    INSERT INTO taskcast.event (task, index, at, level, mode, type, series, field, member, text_bytes, data)
    SELECT
        e.task, e.index, greatest(e.floor_at, c.now), e.level, e.mode, e.type, e.series, e.field, e.member,
        e.text_bytes, e.data
    FROM entry e, clock c
    WHERE e.is_first
    ORDER BY e.position
    ON CONFLICT (task, index) DO NOTHING
    RETURNING task
),
rest AS (
    INSERT INTO taskcast.event (task, index, at, level, mode, type, series, field, member, text_bytes, data)
    SELECT
        e.task, e.index, greatest(e.floor_at, c.now), e.level, e.mode, e.type, e.series, e.field, e.member,
        e.text_bytes, e.data
    FROM entry e
    JOIN claimed x ON x.task = e.task
    CROSS JOIN clock c
    WHERE NOT e.is_first
),
-- Says which tasks were written; the violation of its key, by a batch that is
-- sent again, takes back everything above.
receipt AS (
    INSERT INTO taskcast.receipt (lane, batch, at, task, from_index, next_index)
    SELECT
        $1::bigint,
        $2::bigint,
        (SELECT now FROM clock),
        coalesce(array_agg(r.task), '{}'),
        coalesce(array_agg(r.from_index), '{}'),
        coalesce(array_agg(r.next_index), '{}')
    FROM ready r
    JOIN claimed x ON x.task = r.task
    HAVING (SELECT g.is_server AND g.is_registered FROM guard g)
    RETURNING at, task
),
keyed AS (
    INSERT INTO taskcast.idempotency (key, request, task, first_index, at)
    SELECT k.key, k.request, k.task, k.first_index, greatest(k.floor_at, c.now)
    FROM unnest($19::bytea[], $20::bytea[], $21::bigint[], $22::bigint[], $23::bigint[])
        AS k (key, request, task, first_index, floor_at)
    JOIN claimed x ON x.task = k.task
    CROSS JOIN clock c
    ORDER BY k.key
),
opened AS (
    INSERT INTO taskcast.series (task, id, mode, level, type, named_field, first_index)
    SELECT s.task, s.id, s.mode, s.level, s.type, s.named_field, s.first_index
    FROM unnest(
        $24::bigint[], $25::text[], $26::smallint[], $27::smallint[], $28::text[], $29::text[], $30::bigint[]
    ) AS s (task, id, mode, level, type, named_field, first_index)
    JOIN claimed x ON x.task = s.task
),
owed AS (
    INSERT INTO taskcast.delivery (task, index, hook, receiver, at, next_at, updated_at)
    SELECT
        o.task, o.index, o.hook, o.receiver, greatest(o.floor_at, c.now), greatest(o.floor_at, c.now),
        greatest(o.floor_at, c.now)
    FROM unnest($31::bigint[], $32::bigint[], $33::text[], $34::bigint[], $35::bigint[])
        AS o (task, index, hook, receiver, floor_at)
    JOIN claimed x ON x.task = o.task
    CROSS JOIN clock c
)
SELECT
    g.is_server AS "is_server!",
    g.is_registered AS "is_registered!",
    (SELECT r.at FROM receipt r) AS at,
    (SELECT r.task FROM receipt r) AS written
FROM guard g
