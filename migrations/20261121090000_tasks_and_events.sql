-- The first schema: tasks, their logs, and what writers and readers share.
-- Creates new tables only; locks nothing that exists.
--
-- All names are qualified: the migration runs beside the user's own tables
-- and does not depend on a search path.

-- What a task was created with, and how it ended. Wide, rarely written.
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
    result text,
    error text,
    ttl_seconds bigint,
    created_at bigint NOT NULL,
    deleted_at bigint
);

-- An id is free again as soon as its task is deleted.
CREATE UNIQUE INDEX task_id_live ON taskcast.task (id) WHERE deleted_at IS NULL;
CREATE INDEX task_deleted ON taskcast.task (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX task_type ON taskcast.task (type, number DESC) WHERE type IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX task_tags ON taskcast.task USING gin (tags) WHERE tags IS NOT NULL;

-- Where a task's log ends: the one row every change of a task holds.
-- Narrow, and with room on its page, so that updates stay on it and touch no
-- index; status and deadline, which are indexed, change a few times in a life.
CREATE TABLE taskcast.head (
    task bigint PRIMARY KEY,
    status smallint NOT NULL,
    next_index bigint NOT NULL,
    -- Unix milliseconds of the newest event; 0 without events.
    last_at bigint NOT NULL,
    -- Unix milliseconds of the last transition, or of creation.
    updated_at bigint NOT NULL,
    -- Unix milliseconds; null without a time to live and once finished.
    deadline bigint
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000
);

CREATE INDEX head_status ON taskcast.head (status, task DESC);
CREATE INDEX head_deadline ON taskcast.head (deadline) WHERE deadline IS NOT NULL;

-- Events, deltas of accumulate series apart. No second index and no foreign
-- key: the head's lock proves the task, and each would cost every insert.
CREATE TABLE taskcast.event (
    task bigint NOT NULL,
    index bigint NOT NULL,
    at bigint NOT NULL,
    level smallint NOT NULL,
    mode smallint,
    type text COLLATE "C" NOT NULL,
    series text COLLATE "C",
    field text COLLATE "C",
    data text NOT NULL,
    PRIMARY KEY (task, index)
) WITH (
    -- Superseded events go in blocks; readers pass over their index entries
    -- until they are vacuumed.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000
);

-- Deltas of accumulate series. A table of their own, so that a reader who
-- wants snapshots in their place does not read past them.
CREATE TABLE taskcast.delta (
    task bigint NOT NULL,
    index bigint NOT NULL,
    at bigint NOT NULL,
    level smallint NOT NULL,
    mode smallint,
    type text COLLATE "C" NOT NULL,
    series text COLLATE "C",
    field text COLLATE "C",
    data text NOT NULL,
    PRIMARY KEY (task, index)
);

-- How each series began and where it stands. Written with its events.
CREATE TABLE taskcast.series (
    task bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    mode smallint NOT NULL,
    level smallint NOT NULL,
    type text COLLATE "C" NOT NULL,
    named_field text COLLATE "C",
    field text COLLATE "C",
    first_index bigint NOT NULL,
    last_index bigint NOT NULL,
    text_bytes bigint NOT NULL,
    PRIMARY KEY (task, id)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000
);

-- What full blocks of a log hold, by type and level, summed up in a tree.
CREATE TABLE taskcast.node (
    task bigint NOT NULL,
    height smallint NOT NULL,
    ordinal bigint NOT NULL,
    kinds text NOT NULL,
    PRIMARY KEY (task, height, ordinal)
);

-- The text an accumulate series gained in the blocks a node sums up.
CREATE TABLE taskcast.piece (
    task bigint NOT NULL,
    series text COLLATE "C" NOT NULL,
    height smallint NOT NULL,
    ordinal bigint NOT NULL,
    last_index bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (task, series, height, ordinal)
);

-- The one event of a latest series that is left in the summed up blocks.
CREATE TABLE taskcast.survivor (
    task bigint NOT NULL,
    series text COLLATE "C" NOT NULL,
    index bigint NOT NULL,
    PRIMARY KEY (task, series)
);

-- Writers. A lane has one batch in flight, numbered from 1.
CREATE TABLE taskcast.lane (
    lane bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seen_at bigint NOT NULL
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
    moved_at bigint[] NOT NULL,
    PRIMARY KEY (lane, batch)
);
