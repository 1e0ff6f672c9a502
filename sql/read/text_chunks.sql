-- The text of a series in the blocks that these roll-ups cover, in order.
-- OFFSET keeps each range an index scan, as for the roll-ups themselves.
SELECT c.body AS "body!"
FROM unnest($3::smallint[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS n (height, first, past, position)
CROSS JOIN LATERAL (
    SELECT x.ordinal, x.body
    FROM taskcast.text_chunk x
    WHERE x.task = $1
        AND x.series = $2
        AND x.height = n.height
        AND x.ordinal >= n.first
        AND x.ordinal < n.past
    OFFSET 0
) c
ORDER BY n.position, c.ordinal
