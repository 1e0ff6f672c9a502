-- Tallies by height and stretch of ordinals.
SELECT n.height, n.ordinal, n.kinds
FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS w (height, first, past)
JOIN taskcast.node n
    ON n.task = $1 AND n.height = w.height AND n.ordinal >= w.first AND n.ordinal < w.past
