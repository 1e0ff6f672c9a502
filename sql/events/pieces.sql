-- The text of a series in the blocks that these nodes sum up, in order. OFFSET
-- keeps each stretch a look into the index, as for the nodes themselves.
SELECT p.body AS "body!"
FROM unnest($3::smallint[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS n (height, first, past, position)
CROSS JOIN LATERAL (
    SELECT piece.ordinal, piece.body
    FROM taskcast.piece
    WHERE piece.task = $1
        AND piece.series = $2
        AND piece.height = n.height
        AND piece.ordinal >= n.first
        AND piece.ordinal < n.past
    OFFSET 0
) p
ORDER BY n.position, p.ordinal
