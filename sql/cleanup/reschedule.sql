-- Notes where rules go on, and when.
UPDATE taskcast.cleanup c
SET next_index = d.next_index, due_at = d.due_at
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[]) AS d (task, rule, next_index, due_at)
WHERE c.task = d.task AND c.rule = d.rule
