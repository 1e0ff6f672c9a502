-- Puts off what is due for tasks that still owe something to a webhook.
UPDATE taskcast.cleanup c
SET due_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $1::bigint
FROM (
    SELECT x.task, x.rule
    FROM taskcast.cleanup x
    WHERE x.due_at <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
        AND EXISTS (SELECT FROM taskcast.delivery d WHERE d.task = x.task AND d.state = 0)
    ORDER BY x.due_at
    LIMIT $2
) w
WHERE c.task = w.task AND c.rule = w.rule
