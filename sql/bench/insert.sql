-- One event and nothing else: no order point, no number taken from a task, no
-- receipt. Nothing that keeps an event can do with less.
INSERT INTO taskcast.event (task, index, at, level, type, data)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 1, 'bench.delta', $3)
