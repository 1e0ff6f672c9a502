-- Deltas of one series in a range of the log.
SELECT e.index, e.at, e.level, e.mode, e.type AS event_type, e.series, e.field, e.data
FROM taskcast.event e
WHERE e.task = $1
    AND e.index >= $3::bigint
    AND e.index <= $4::bigint
    AND e.series = $2
    AND e.text_bytes IS NOT NULL
ORDER BY e.index
