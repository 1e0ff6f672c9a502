-- Tells whether a series is still there.
SELECT EXISTS (SELECT FROM taskcast.series s WHERE s.task = $1 AND s.id = $2) AS "exists!"
