-- What each lane committed after the mark, along the receipts' key. A lane
-- the mark does not know is read from its first receipt. There is one row at
-- least, which tells the time.
SELECT
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "now!",
    l.lane AS "lane?",
    r.batch AS "batch?",
    r.task AS "task?",
    r.from_index AS "from_index?",
    r.next_index AS "next_index?"
FROM (SELECT) c
LEFT JOIN (SELECT lane FROM taskcast.lane UNION ALL SELECT lane FROM taskcast.retired_lane) l ON true
LEFT JOIN unnest($1::bigint[], $2::bigint[]) AS m (lane, batch) ON m.lane = l.lane
LEFT JOIN LATERAL (
    SELECT receipt.batch, receipt.task, receipt.from_index, receipt.next_index
    FROM taskcast.receipt
    WHERE receipt.lane = l.lane AND receipt.batch > coalesce(m.batch, 0)
    ORDER BY receipt.batch
    LIMIT 4096
) r ON true
ORDER BY l.lane, r.batch
