-- Rolls up the only block of each of many finished tasks; see rollup/block.sql.
-- Whoever inserts the roll-up of a task does the rest for it.
WITH
rollup AS (
    INSERT INTO taskcast.rollup (task, height, ordinal, kinds)
    SELECT i.task, 0, 0, i.kinds
    FROM unnest($1::bigint[], $2::text[]) AS i (task, kinds)
    ON CONFLICT (task, height, ordinal) DO NOTHING
    RETURNING task
),
chunks AS (
    INSERT INTO taskcast.text_chunk (task, series, height, ordinal, last_index, body)
    SELECT c.task, c.series, 0, 0, c.last_index, c.body
    FROM unnest($3::bigint[], $4::text[], $5::bigint[], $6::text[]) AS c (task, series, last_index, body)
    JOIN rollup r ON r.task = c.task
),
superseded AS MATERIALIZED (
    SELECT s.task, array_agg(s.index) AS index
    FROM unnest($7::bigint[], $8::bigint[]) AS s (task, index)
    JOIN rollup r ON r.task = s.task
    GROUP BY s.task
),
floor AS (
    UPDATE taskcast.head h
    SET floor = $12::bigint
    FROM superseded s
    WHERE h.task = s.task AND h.floor < $12::bigint
),
removal AS (
    INSERT INTO taskcast.removal (task, index)
    SELECT s.task, s.index FROM superseded s
)
INSERT INTO taskcast.latest_retained (task, series, index)
SELECT x.task, x.series, x.index
FROM unnest($9::bigint[], $10::text[], $11::bigint[]) AS x (task, series, index)
JOIN rollup r ON r.task = x.task
ON CONFLICT (task, series) DO UPDATE SET index = excluded.index
