-- The schema: tasks, their logs, webhooks, cleanup, and what writers share.
--
-- All names are qualified: the migration runs beside the user's own tables
-- and does not depend on a search path.

-- What a task was created with. Wide; written at creation and at deletion.
CREATE TABLE taskcast.task (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    -- Tells a creator whether a row is its own after a lost reply.
    nonce bigint NOT NULL,
    type text COLLATE "C",
    tags text[] COLLATE "C",
    -- JSON as sent. Not jsonb, which refuses some escapes and rewrites numbers.
    params text,
    metadata text,
    -- JSON in the form of the wire, secrets of webhooks included.
    auth_config text,
    webhooks text,
    cleanup text,
    ttl_seconds bigint,
    created_at bigint NOT NULL,
    deleted_at bigint
);

-- An id is free again as soon as its task is deleted.
CREATE UNIQUE INDEX task_id_live ON taskcast.task (id) WHERE deleted_at IS NULL;
CREATE INDEX task_deleted ON taskcast.task (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX task_type ON taskcast.task (type, number DESC) WHERE type IS NOT NULL AND deleted_at IS NULL;

-- The tags of tasks once more, in the order of lists, which no index on an array
-- has. Tasks without tags have no rows here.
CREATE TABLE taskcast.task_tag (
    tag text COLLATE "C" NOT NULL,
    task bigint NOT NULL,
    PRIMARY KEY (tag, task)
);

-- What every append reads of its task, and what a transition changes. Written
-- at creation, by transitions, by deletion, and once for each block of the log
-- from which superseded events are removed; never by an append of events.
CREATE TABLE taskcast.head (
    task bigint PRIMARY KEY,
    -- 0 pending, 1 running, 2 to 5 terminal, 9 deleted.
    status smallint NOT NULL,
    -- Rows below this index may be gone, so an append that would begin below it
    -- is based on outdated state and writes nothing.
    floor bigint NOT NULL DEFAULT 0,
    -- Where the log of a finished task ends; null before, when its last row
    -- says so. Cleanup may remove the last row of a finished task.
    end_index bigint,
    -- Unix milliseconds of the last transition, or of creation.
    updated_at bigint NOT NULL,
    -- Unix milliseconds; null without a time to live and once finished.
    deadline bigint,
    -- Digest of the cleanup rules the finished task was last scheduled by; 0
    -- for none, -1 for a task that brought rules of its own.
    scheduled_rules bigint NOT NULL DEFAULT 0,
    -- JSON as sent.
    result text,
    error text
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000
);

CREATE INDEX head_status ON taskcast.head (status, task DESC);
CREATE INDEX head_deadline ON taskcast.head (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX head_scheduled ON taskcast.head (scheduled_rules, task) WHERE status BETWEEN 2 AND 5;

-- The log. Its primary key is the concurrency check between writers: a writer
-- inserts at the index it believes is next, and only one row has that index.
-- No second index and no foreign key: each would cost every insert.
CREATE TABLE taskcast.event (
    task bigint NOT NULL,
    index bigint NOT NULL,
    at bigint NOT NULL,
    -- 0 debug to 3 error; -1 for the placeholder of a reservation, which no
    -- other transaction ever sees.
    level smallint NOT NULL,
    mode smallint,
    type text COLLATE "C" NOT NULL,
    series text COLLATE "C",
    -- The text field that the event named.
    field text COLLATE "C",
    -- The text field in force, where the event did not name it itself.
    member text COLLATE "C",
    -- Set for deltas of accumulate series: length of the text up to and
    -- including this event, in bytes.
    text_bytes bigint,
    data text NOT NULL,
    PRIMARY KEY (task, index)
) WITH (
    -- Superseded events go in blocks; readers pass over their index entries
    -- until they are vacuumed.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000
);

-- How each series began. Where it stands is in its newest event.
CREATE TABLE taskcast.series (
    task bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    mode smallint NOT NULL,
    level smallint NOT NULL,
    type text COLLATE "C" NOT NULL,
    named_field text COLLATE "C",
    first_index bigint NOT NULL,
    PRIMARY KEY (task, id)
);

-- Roll-ups of full blocks of a log: a tree of histograms by type and level.
CREATE TABLE taskcast.rollup (
    task bigint NOT NULL,
    height smallint NOT NULL,
    ordinal bigint NOT NULL,
    kinds text NOT NULL,
    PRIMARY KEY (task, height, ordinal)
);

-- The text an accumulate series gained in the blocks that a roll-up covers.
CREATE TABLE taskcast.text_chunk (
    task bigint NOT NULL,
    series text COLLATE "C" NOT NULL,
    height smallint NOT NULL,
    ordinal bigint NOT NULL,
    last_index bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (task, series, height, ordinal)
);

-- The one event of a latest series that is retained of the rolled up blocks.
CREATE TABLE taskcast.latest_retained (
    task bigint NOT NULL,
    series text COLLATE "C" NOT NULL,
    index bigint NOT NULL,
    PRIMARY KEY (task, series)
);

-- Superseded events whose roll-up is committed. They are removed once every
-- statement that may have begun before that has ended.
CREATE TABLE taskcast.removal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task bigint NOT NULL,
    index bigint[] NOT NULL
);

-- Writers. A lane has one batch in flight, numbered from 1; its id is random,
-- so that a database restored from a backup never hands it out again. Rows are
-- inserted and deleted only: every append looks its lane up.
CREATE TABLE taskcast.lane (
    lane bigint PRIMARY KEY
);

CREATE TABLE taskcast.lane_heartbeat (
    lane bigint PRIMARY KEY,
    seen_at bigint NOT NULL
);

-- Lanes that may not write any more. Their receipts are read until the last
-- statement that still found the lane has ended and every reader has polled.
CREATE TABLE taskcast.retired_lane (
    lane bigint PRIMARY KEY,
    at bigint NOT NULL
);

-- One row for each committed batch, kept for minutes: tells a lane that lost
-- a reply what came of its batch, and readers what moved.
CREATE TABLE taskcast.receipt (
    lane bigint NOT NULL,
    batch bigint NOT NULL,
    at bigint NOT NULL,
    task bigint[] NOT NULL,
    from_index bigint[] NOT NULL,
    next_index bigint[] NOT NULL,
    PRIMARY KEY (lane, batch)
);

-- What requests with a key did. Written with what they did, or not at all.
CREATE TABLE taskcast.idempotency (
    -- Digest of caller, route and key.
    key bytea PRIMARY KEY,
    -- Digest of the body.
    request bytea NOT NULL,
    task bigint NOT NULL,
    -- For a creation: the id the task got.
    task_id text COLLATE "C",
    first_index bigint NOT NULL,
    -- Unix milliseconds of the events, or of the creation.
    at bigint NOT NULL
);

CREATE INDEX idempotency_at ON taskcast.idempotency (at);

-- The outbox: one row for each event and webhook, written with the event.
CREATE TABLE taskcast.delivery (
    task bigint NOT NULL,
    index bigint NOT NULL,
    -- Position among the task's hooks, or name of a configured endpoint.
    hook text COLLATE "C" NOT NULL,
    -- Groups what goes to one receiver; negative for configured endpoints.
    receiver bigint NOT NULL,
    -- Timestamp of the event, Unix milliseconds.
    at bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    -- When the next attempt is due, or the claim on the present one ends.
    next_at bigint NOT NULL,
    -- Whether that time has come, as far as anybody looked. What is due and
    -- what waits have an index each, so that finding the receivers of what is
    -- due does not step over those that are only owed something later.
    ready boolean NOT NULL DEFAULT true,
    updated_at bigint NOT NULL,
    last_status integer,
    last_problem text,
    -- A failed delivery keeps its event, which may be cleaned up meanwhile.
    level smallint,
    mode smallint,
    type text COLLATE "C",
    series text COLLATE "C",
    field text COLLATE "C",
    data text,
    PRIMARY KEY (task, index, hook)
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000
);

CREATE INDEX delivery_ready ON taskcast.delivery (receiver, next_at) WHERE state = 0 AND ready;
CREATE INDEX delivery_waiting ON taskcast.delivery (next_at) WHERE state = 0 AND NOT ready;
CREATE INDEX delivery_kept ON taskcast.delivery (state, updated_at) WHERE state <> 0;

-- Which cleanup rules apply to which finished tasks, and when they act next.
CREATE TABLE taskcast.cleanup (
    task bigint NOT NULL,
    rule text COLLATE "C" NOT NULL,
    due_at bigint NOT NULL,
    -- Where the rule goes on in the log.
    next_index bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (task, rule)
);

CREATE INDEX cleanup_due ON taskcast.cleanup (due_at, task);

-- What one instance does for all.
CREATE TABLE taskcast.lease (
    name text COLLATE "C" PRIMARY KEY,
    holder bigint NOT NULL,
    until bigint NOT NULL,
    -- Digest of the cleanup rules the holder carries out; 0 for none.
    rules bigint NOT NULL DEFAULT 0
);

-- Ends a statement whose conditional UPDATE did not match, with everything it
-- did so far. Lanes know the code and read the task again.
CREATE FUNCTION taskcast.write_conflict() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another writer changed the task' USING ERRCODE = 'TC001';
END
$$;

-- Reserves the next index of each unfinished task, in ascending order, to the
-- end of the transaction. Heads come first, so that whoever looks for locked
-- heads finds these; then a placeholder row in each log, behind whatever is
-- being written at this moment. Each attempt sees what was committed before
-- it, and comes sooner than the next batch of a writer that has to hear of its
-- last one first.
CREATE FUNCTION taskcast.reserve(tasks bigint[])
RETURNS TABLE (reserved_task bigint, reserved_index bigint) LANGUAGE plpgsql AS $$
DECLARE
    locked bigint[];
    one bigint;
    next_free bigint;
BEGIN
    SELECT coalesce(array_agg(l.task), '{}') INTO locked
    FROM (
        SELECT h.task FROM taskcast.head h WHERE h.task = ANY (tasks) ORDER BY h.task FOR NO KEY UPDATE
    ) l;
    FOREACH one IN ARRAY locked LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM taskcast.head h WHERE h.task = one AND h.status < 2);
        LOOP
            next_free := coalesce(
                (SELECT e.index + 1 FROM taskcast.event e WHERE e.task = one ORDER BY e.index DESC LIMIT 1), 0
            );
            INSERT INTO taskcast.event (task, index, at, level, type, data)
            VALUES (one, next_free, 0, -1, '', '')
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
        END LOOP;
        reserved_task := one;
        reserved_index := next_free;
        RETURN NEXT;
    END LOOP;
END
$$;
