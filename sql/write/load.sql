-- What decisions depend on, of one moment: tasks with the end of their logs,
-- and where the series stand that the requests name (null for a request
-- without one).
WITH
wanted AS MATERIALIZED (
    SELECT DISTINCT i.id, i.series FROM unnest($1::text[], $2::text[]) AS i (id, series)
),
known AS MATERIALIZED (
    SELECT
        t.id, t.number, t.type, t.auth_config, t.webhooks, h.status,
        coalesce(h.end_index, newest.index + 1, 0) AS next_index,
        coalesce(newest.at, 0) AS last_at,
        -- The part of the log that is not rolled up begins here.
        coalesce((
            SELECT r.ordinal + 1
            FROM taskcast.rollup r
            WHERE r.task = t.number AND r.height = 0
            ORDER BY r.ordinal DESC
            LIMIT 1
        ), 0) * $3::bigint AS tail
    FROM (SELECT DISTINCT w.id FROM wanted w) i
    -- OFFSET makes each of these an index scan by key, whatever the planner
    -- knows of the tables when it plans the statement for good.
    CROSS JOIN LATERAL (
        SELECT x.* FROM taskcast.task x WHERE x.id = i.id AND x.deleted_at IS NULL OFFSET 0
    ) t
    CROSS JOIN LATERAL (SELECT x.* FROM taskcast.head x WHERE x.task = t.number OFFSET 0) h
    LEFT JOIN LATERAL (
        SELECT e.index, e.at
        FROM taskcast.event e
        -- A reservation of this transaction is no event.
        WHERE e.task = t.number AND e.level >= 0
        ORDER BY e.index DESC
        LIMIT 1
    ) newest ON true
),
-- The newest event of each accumulate series in the tail, grouped once.
newest AS MATERIALIZED (
    SELECT k.number, e.series, max(e.index) AS index
    FROM known k
    CROSS JOIN LATERAL (
        SELECT x.series, x.index
        FROM taskcast.event x
        WHERE x.task = k.number AND x.index >= k.tail AND x.text_bytes IS NOT NULL
        OFFSET 0
    ) e
    WHERE k.id IN (SELECT w.id FROM wanted w WHERE w.series IS NOT NULL)
    GROUP BY k.number, e.series
)
SELECT
    k.id AS "id!",
    k.number AS "number!",
    k.type AS task_type,
    k.auth_config,
    k.webhooks,
    k.status AS "status!",
    k.next_index AS "next_index!",
    k.last_at AS "last_at!",
    s.id AS "series_id?",
    s.mode AS "mode?",
    s.level AS "level?",
    s.type AS "event_type?",
    s.named_field,
    coalesce(e.field, e.member, s.named_field) AS field,
    s.first_index AS "first_index?",
    coalesce(e.index, s.first_index) AS "last_index?",
    coalesce(e.text_bytes, 0) AS "text_bytes?"
FROM wanted w
JOIN known k ON k.id = w.id
LEFT JOIN LATERAL (
    SELECT x.* FROM taskcast.series x WHERE x.task = k.number AND x.id = w.series OFFSET 0
) s ON true
LEFT JOIN newest n ON n.number = k.number AND n.series = s.id
LEFT JOIN LATERAL (
    SELECT e.index, e.field, e.member, e.text_bytes
    FROM taskcast.event e
    WHERE e.task = k.number
        AND e.index = coalesce(n.index, (
            SELECT c.last_index
            FROM taskcast.text_chunk c
            WHERE c.task = k.number AND c.series = s.id AND c.height = 0
            ORDER BY c.ordinal DESC
            LIMIT 1
        ))
) e ON s.mode = 1
