-- Webhooks, cleanup rules, rules of access, and idempotency keys.
-- Adds columns without rewriting a table; the index is built under a lock on
-- writers, which is short while finished tasks are few.

ALTER TABLE taskcast.task
    -- JSON in the form of the wire, secrets of webhooks included.
    ADD COLUMN auth_config text,
    ADD COLUMN webhooks text,
    ADD COLUMN cleanup text;

-- The set of cleanup rules a finished task was last looked at by; 0 for none,
-- -1 for a task that brought rules of its own.
ALTER TABLE taskcast.head ADD COLUMN swept bigint NOT NULL DEFAULT 0;

CREATE INDEX head_swept ON taskcast.head (swept, task) WHERE status BETWEEN 2 AND 5;

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

-- What is owed to webhooks: one row for each event and hook. Written with the
-- event. No foreign key: the head's lock proves the task.
CREATE TABLE taskcast.delivery (
    task bigint NOT NULL,
    index bigint NOT NULL,
    -- Position among the task's hooks, or name of a configured endpoint.
    hook text COLLATE "C" NOT NULL,
    -- Groups what goes to one receiver.
    receiver bigint NOT NULL,
    -- Timestamp of the event, Unix milliseconds.
    at bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    -- When the next attempt is due, or the claim on the present one ends.
    next_at bigint NOT NULL,
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

CREATE INDEX delivery_due ON taskcast.delivery (receiver, next_at) WHERE state = 0;
CREATE INDEX delivery_kept ON taskcast.delivery (state, updated_at) WHERE state <> 0;

-- Which rules hold for which finished tasks, and when they act next.
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
    until bigint NOT NULL
);
