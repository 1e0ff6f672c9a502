-- Cleans a bounded chunk of a log: of the next entries from an index on, those
-- are removed that the rule names and that are old enough. A null condition
-- admits all. Deltas go when their series is gone. Says where to go on; null
-- at the end.
WITH
entry AS MATERIALIZED (
    SELECT e.index, e.at, e.level, e.mode, e.type, e.series, e.text_bytes IS NOT NULL AS is_delta
    FROM taskcast.event e
    WHERE e.task = $1 AND e.index >= $2
    ORDER BY e.index
    LIMIT $7
),
removed AS (
    DELETE FROM taskcast.event x
    USING entry e
    WHERE x.task = $1
        AND x.index = e.index
        AND CASE
            WHEN e.is_delta THEN NOT EXISTS (
                SELECT FROM taskcast.series s WHERE s.task = $1 AND s.id = e.series
            )
            ELSE e.at <= $3
                AND ($4::text[] IS NULL OR e.type LIKE ANY ($4))
                AND ($5::smallint[] IS NULL OR e.level = ANY ($5))
                AND ($6::smallint IS NULL OR e.mode = $6)
        END
    RETURNING x.index
)
SELECT
    (SELECT count(*) FROM removed) AS "removed!",
    CASE WHEN (SELECT count(*) FROM entry) = $7 THEN (SELECT max(e.index) + 1 FROM entry e) END AS next_index,
    (SELECT min(e.at) FROM entry e WHERE e.at > $3) AS younger_at
