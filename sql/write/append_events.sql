-- Carries out one batch of nothing but events, of which no webhook hears, whose
-- series are open and whose requests have no key. It is append.sql less its
-- marked parts; a test compares them.
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
-- A batch that is sent again after a lost reply finds its receipt here, before
-- it gets to the log.
receipt AS (
    INSERT INTO taskcast.receipt (lane, batch, at, task, from_index, next_index)
    SELECT $1::bigint, $2::bigint, c.now, $4, $5, $6::bigint[]
    FROM guard g, clock c
    WHERE g.is_server AND g.is_registered AND g.is_current
    RETURNING at
),
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
)
SELECT
    g.is_server AS "is_server!",
    g.is_registered AS "is_registered!",
    (SELECT r.at FROM receipt r) AS at
FROM guard g
