-- A bounded bite of a log: of the next entries from an index on, those go that
-- the rule names and that are old enough. A null condition admits all. Deltas
-- go when their series is gone. Says where to go on; null at the end.
WITH
entry AS MATERIALIZED (
    SELECT *
    FROM (
        (
            SELECT e.index, e.at, e.level, e.mode, e.type, e.series, false AS is_delta
            FROM taskcast.event e
            WHERE e.task = $1 AND e.index >= $2
            ORDER BY e.index
            LIMIT $7
        )
        UNION ALL
        (
            SELECT d.index, d.at, d.level, d.mode, d.type, d.series, true
            FROM taskcast.delta d
            WHERE d.task = $1 AND d.index >= $2
            ORDER BY d.index
            LIMIT $7
        )
    ) u
    ORDER BY u.index
    LIMIT $7
),
doomed AS MATERIALIZED (
    SELECT e.index, e.is_delta
    FROM entry e
    WHERE CASE
        WHEN e.is_delta THEN NOT EXISTS (
            SELECT FROM taskcast.series s WHERE s.task = $1 AND s.id = e.series
        )
        ELSE e.at <= $3
            AND ($4::text[] IS NULL OR e.type LIKE ANY ($4))
            AND ($5::smallint[] IS NULL OR e.level = ANY ($5))
            AND ($6::smallint IS NULL OR e.mode = $6)
    END
),
events AS (
    DELETE FROM taskcast.event e
    USING doomed d
    WHERE NOT d.is_delta AND e.task = $1 AND e.index = d.index
    RETURNING e.index
),
deltas AS (
    DELETE FROM taskcast.delta x
    USING doomed d
    WHERE d.is_delta AND x.task = $1 AND x.index = d.index
    RETURNING x.index
)
SELECT
    (SELECT count(*) FROM events) + (SELECT count(*) FROM deltas) AS "removed!",
    CASE WHEN (SELECT count(*) FROM entry) = $7 THEN (SELECT max(e.index) + 1 FROM entry e) END AS next_index,
    (SELECT min(e.at) FROM entry e WHERE e.at > $3) AS younger_at
