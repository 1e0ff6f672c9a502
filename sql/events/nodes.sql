-- Tallies by height and stretch of ordinals. OFFSET keeps each stretch a look
-- into the index of its own; joined as a whole, all nodes of a task are read.
SELECT n.height AS "height!", n.ordinal AS "ordinal!", n.kinds AS "kinds!"
FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS w (height, first, past)
CROSS JOIN LATERAL (
    SELECT node.height, node.ordinal, node.kinds
    FROM taskcast.node
    WHERE node.task = $1 AND node.height = w.height AND node.ordinal >= w.first AND node.ordinal < w.past
    OFFSET 0
) n
