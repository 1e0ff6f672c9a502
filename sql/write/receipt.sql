-- What came of a batch whose reply was lost.
SELECT at, task
FROM taskcast.receipt
WHERE lane = $1 AND batch = $2
