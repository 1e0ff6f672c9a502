-- Accumulate series of a task, with the age of their newest delta.
SELECT s.id, s.type AS event_type, s.level, d.at AS "at?"
FROM taskcast.series s
LEFT JOIN taskcast.delta d ON d.task = s.task AND d.index = s.last_index
WHERE s.task = $1 AND s.mode = 1
