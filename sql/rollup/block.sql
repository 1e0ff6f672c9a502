-- Rolls up one block: its histogram, the text its series gained, and which
-- event of each latest series is retained. Whoever inserts the roll-up does
-- the rest. Superseded events are only noted: the floor says that no append
-- may begin below it any more, and what may have begun before has to end.
WITH
rollup AS (
    INSERT INTO taskcast.rollup (task, height, ordinal, kinds)
    VALUES ($1, 0, $2, $3)
    ON CONFLICT (task, height, ordinal) DO NOTHING
    RETURNING task
),
chunks AS (
    INSERT INTO taskcast.text_chunk (task, series, height, ordinal, last_index, body)
    SELECT r.task, c.series, 0, $2, c.last_index, c.body
    FROM rollup r, unnest($4::text[], $5::bigint[], $6::text[]) AS c (series, last_index, body)
),
-- Superseded within the block ($7), or by it.
superseded AS MATERIALIZED (
    SELECT r.task, array_agg(x.index) AS index
    FROM rollup r
    CROSS JOIN (
        SELECT unnest($7::bigint[]) AS index
        UNION ALL
        SELECT l.index FROM taskcast.latest_retained l WHERE l.task = $1 AND l.series = ANY ($8::text[])
    ) x
    GROUP BY r.task
),
floor AS (
    UPDATE taskcast.head h
    SET floor = $10::bigint
    FROM superseded s
    WHERE h.task = s.task AND h.floor < $10::bigint
),
removal AS (
    INSERT INTO taskcast.removal (task, index)
    SELECT s.task, s.index FROM superseded s
),
retained AS (
    INSERT INTO taskcast.latest_retained AS l (task, series, index)
    SELECT r.task, x.series, x.index
    FROM rollup r, unnest($8::text[], $9::bigint[]) AS x (series, index)
    ON CONFLICT (task, series) DO UPDATE SET index = excluded.index
)
SELECT count(*) AS "inserted!" FROM rollup
