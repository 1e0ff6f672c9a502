-- Sums up one block: its kinds, the text its series gained, and which event
-- of each latest series is left. Whoever inserts the node does the rest.
WITH
node AS (
    INSERT INTO taskcast.node (task, height, ordinal, kinds)
    VALUES ($1, 0, $2, $3)
    ON CONFLICT (task, height, ordinal) DO NOTHING
    RETURNING task
),
pieces AS (
    INSERT INTO taskcast.piece (task, series, height, ordinal, last_index, body)
    SELECT n.task, p.series, 0, $2, p.last_index, p.body
    FROM node n, unnest($4::text[], $5::bigint[], $6::text[]) AS p (series, last_index, body)
),
-- Superseded within the block, or by it: $7 lists the former.
superseded AS (
    DELETE FROM taskcast.event e
    USING node n
    WHERE e.task = n.task
        AND (
            e.index = ANY ($7::bigint[])
            OR e.index IN (
                SELECT s.index FROM taskcast.survivor s WHERE s.task = $1 AND s.series = ANY ($8::text[])
            )
        )
        -- What is still to be sent stays; no reader sees it.
        AND NOT EXISTS (
            SELECT FROM taskcast.delivery d WHERE d.task = e.task AND d.index = e.index AND d.state = 0
        )
),
survivors AS (
    INSERT INTO taskcast.survivor AS s (task, series, index)
    SELECT n.task, x.series, x.index
    FROM node n, unnest($8::text[], $9::bigint[]) AS x (series, index)
    ON CONFLICT (task, series) DO UPDATE SET index = excluded.index
)
SELECT count(*) AS "inserted!" FROM node
