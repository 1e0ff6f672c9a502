-- One page for each range. A range always gives a row, so that its head is
-- known; e is null where nothing is left.
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
FROM unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::boolean[], $6::bigint[], $7::bigint[]
) WITH ORDINALITY
    AS r (task, from_index, to_index, with_deltas, with_superseded, max_events, max_bytes, position)
LEFT JOIN taskcast.head h ON h.task = r.task
LEFT JOIN LATERAL (
    SELECT *
    FROM (
        SELECT u.*, sum(octet_length(u.data)) OVER (ORDER BY u.index) - octet_length(u.data) AS bytes_before
        FROM (
            (
                SELECT e.index, e.at, e.level, e.mode, e.type, e.series, e.field, e.data
                FROM taskcast.event e
                WHERE e.task = r.task
                    AND e.index >= r.from_index
                    AND e.index < r.to_index
                    -- Mode 2 is latest: only the newest event stands for the series.
                    AND (
                        e.mode IS DISTINCT FROM 2
                        OR r.with_superseded
                        OR NOT EXISTS (
                            SELECT FROM taskcast.series s
                            WHERE s.task = e.task AND s.id = e.series AND s.last_index > e.index
                        )
                    )
                ORDER BY e.index
                LIMIT r.max_events
            )
            UNION ALL
            (
                SELECT d.index, d.at, d.level, d.mode, d.type, d.series, d.field, d.data
                FROM taskcast.delta d
                WHERE r.with_deltas AND d.task = r.task AND d.index >= r.from_index AND d.index < r.to_index
                ORDER BY d.index
                LIMIT r.max_events
            )
        ) u
        ORDER BY u.index
        LIMIT r.max_events
    ) sized
    WHERE sized.bytes_before < r.max_bytes
) e ON h.status <> 9
ORDER BY r.position, e.index
