-- What tells plain events from deltas in blocks $2 to $3 of a log, as far as
-- they are rolled up: parents of $4 blocks that lie within, and the blocks on
-- either side of them. The number of rolled-up blocks comes with each row.
WITH known AS MATERIALIZED (
    SELECT coalesce((
        SELECT r.ordinal + 1
        FROM taskcast.rollup r
        WHERE r.task = $1 AND r.height = 0
        ORDER BY r.ordinal DESC
        LIMIT 1
    ), 0) AS blocks
),
wanted AS (
    SELECT
        k.blocks,
        ($2::bigint + $4::bigint - 1) / $4::bigint AS first_parent,
        greatest($2::bigint, least($3::bigint, k.blocks)) AS past_block,
        greatest($2::bigint, least($3::bigint, k.blocks)) / $4::bigint AS past_parent
    FROM known k
)
SELECT
    w.blocks AS "blocks!",
    n.height AS "height?",
    n.ordinal AS "ordinal?",
    n.kinds AS "kinds?"
FROM wanted w
LEFT JOIN LATERAL (
    (
        SELECT r.height, r.ordinal, r.kinds
        FROM taskcast.rollup r
        WHERE r.task = $1 AND r.height = 1
            AND r.ordinal >= w.first_parent AND r.ordinal < w.past_parent
    )
    UNION ALL
    (
        SELECT r.height, r.ordinal, r.kinds
        FROM taskcast.rollup r
        WHERE r.task = $1 AND r.height = 0
            AND r.ordinal >= $2::bigint
            AND r.ordinal < least(w.past_block, w.first_parent * $4::bigint)
    )
    UNION ALL
    (
        SELECT r.height, r.ordinal, r.kinds
        FROM taskcast.rollup r
        WHERE r.task = $1 AND r.height = 0
            AND r.ordinal >= greatest(w.first_parent, w.past_parent) * $4::bigint
            AND r.ordinal < w.past_block
    )
) n ON true
