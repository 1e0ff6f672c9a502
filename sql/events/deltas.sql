-- Deltas of one series in a stretch of the log.
SELECT d.index, d.at, d.level, d.mode, d.type AS event_type, d.series, d.field, d.data
FROM taskcast.delta d
WHERE d.task = $1 AND d.index >= $3::bigint AND d.index <= $4::bigint AND d.series = $2
ORDER BY d.index
