-- One page for each range, from the parts of it that are worth reading. A
-- range always gives a row, so that its task is known; e is null where nothing
-- is left. Page and end of the log are of one moment.
SELECT
    r.position AS "position!",
    h.status AS "status?",
    h.next_index AS "next_index?",
    e.index AS "index?",
    e.at AS "at?",
    e.level AS "level?",
    e.mode AS "mode?",
    e.type AS "event_type?",
    e.series,
    e.field,
    e.data AS "data?"
FROM unnest($1::bigint[], $2::boolean[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
    AS r (task, with_deltas, max_events, max_bytes, position)
LEFT JOIN LATERAL (
    SELECT
        x.status,
        coalesce(
            x.end_index,
            (SELECT e.index + 1 FROM taskcast.event e WHERE e.task = x.task ORDER BY e.index DESC LIMIT 1),
            0
        ) AS next_index
    FROM taskcast.head x
    WHERE x.task = r.task
    -- Once for each range, not for each event of its page.
    OFFSET 0
) h ON true
LEFT JOIN LATERAL (
    SELECT *
    FROM (
        -- The window follows the order of its input, which is that of the log
        -- already; ORDER BY would sort the whole page again.
        SELECT
            u.*,
            sum(octet_length(u.data)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(u.data)
                AS bytes_before
        FROM (
            SELECT part.*
            FROM unnest($5::bigint[], $6::bigint[], $7::bigint[]) AS p (position, from_index, to_index)
            CROSS JOIN LATERAL (
                SELECT x.index, x.at, x.level, x.mode, x.type, x.series, x.field, x.data
                FROM taskcast.event x
                WHERE x.task = r.task
                    AND x.index >= p.from_index
                    AND x.index < p.to_index
                    AND (r.with_deltas OR x.text_bytes IS NULL)
                ORDER BY x.index
                LIMIT r.max_events
            ) part
            WHERE p.position = r.position
            -- Parts come in the order of the log, and each part is in its
            -- order: LATERAL leaves only a nested loop to the planner. Without
            -- a sort, parts after the last event wanted are not read.
            LIMIT r.max_events
        ) u
    ) sized
    WHERE sized.bytes_before < r.max_bytes
) e ON h.status <> 9
ORDER BY r.position, e.index
