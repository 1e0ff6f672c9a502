-- Puts off what is due for tasks that still owe something to a webhook, among
-- the $2 rules that are due for longest.
UPDATE taskcast.cleanup c
SET due_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $1::bigint
FROM (
    SELECT x.task, x.rule
    FROM (
        SELECT o.task, o.rule
        FROM taskcast.cleanup o
        WHERE o.due_at <= (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
        ORDER BY o.due_at, o.task
        LIMIT $2
    ) x
    WHERE (SELECT true FROM taskcast.delivery d WHERE d.task = x.task AND d.state = 0 LIMIT 1)
) w
WHERE c.task = w.task AND c.rule = w.rule
