-- The text of a series in the blocks that these nodes sum up, in order.
SELECT p.body
FROM unnest($3::smallint[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS n (height, first, past, position)
JOIN taskcast.piece p
    ON p.task = $1 AND p.series = $2 AND p.height = n.height AND p.ordinal >= n.first AND p.ordinal < n.past
ORDER BY n.position, p.ordinal
