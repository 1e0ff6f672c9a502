-- What came of a batch whose reply was lost.
SELECT task, moved_at
FROM taskcast.receipt
WHERE lane = $1 AND batch = $2
