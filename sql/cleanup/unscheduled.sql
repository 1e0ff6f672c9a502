-- Finished tasks that this set of rules was not scheduled for. A set without
-- rules (0) is about tasks alone that brought rules of their own (-1): others
-- are looked after by instances that have rules.
(
    SELECT h.task AS "task!", h.status AS "status!", h.updated_at AS "updated_at!", t.type AS task_type, t.cleanup
    FROM taskcast.head h
    JOIN taskcast.task t ON t.number = h.task
    WHERE h.status BETWEEN 2 AND 5 AND h.scheduled_rules < $1
    ORDER BY h.scheduled_rules, h.task
    LIMIT $2
)
UNION ALL
(
    SELECT h.task, h.status, h.updated_at, t.type, t.cleanup
    FROM taskcast.head h
    JOIN taskcast.task t ON t.number = h.task
    WHERE h.status BETWEEN 2 AND 5 AND h.scheduled_rules > $1 AND $1 <> 0
    ORDER BY h.scheduled_rules, h.task
    LIMIT $2
)
LIMIT $2
