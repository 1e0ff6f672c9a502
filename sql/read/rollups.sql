-- Roll-ups by height and range of ordinals. OFFSET keeps each range an index
-- scan of its own; joined as a whole, all roll-ups of a task are read.
SELECT n.height AS "height!", n.ordinal AS "ordinal!", n.kinds AS "kinds!"
FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS w (height, first, past)
CROSS JOIN LATERAL (
    SELECT r.height, r.ordinal, r.kinds
    FROM taskcast.rollup r
    WHERE r.task = $1 AND r.height = w.height AND r.ordinal >= w.first AND r.ordinal < w.past
    OFFSET 0
) n
