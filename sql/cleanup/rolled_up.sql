-- Those of these tasks whose first block is rolled up.
SELECT r.task
FROM taskcast.rollup r
WHERE r.task = ANY ($1::bigint[]) AND r.height = 0 AND r.ordinal = 0
