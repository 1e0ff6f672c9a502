-- What a server may do, and nothing more.
--
-- Two roles: one owns the schema and migrates, one serves. An administrator
-- makes them once:
--
--     CREATE ROLE taskcast_owner LOGIN PASSWORD '…';
--     CREATE ROLE taskcast_server LOGIN PASSWORD '…';
--     CREATE SCHEMA taskcast AUTHORIZATION taskcast_owner;
--
-- Then, as taskcast_owner, `taskcast migrate` and this file. It may be run
-- again at any time, and need not be after a later migration.

GRANT USAGE ON SCHEMA taskcast TO taskcast_server;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA taskcast TO taskcast_server;

-- A server reads which migrations were applied and refuses to start when one
-- is missing. It never notes one.
REVOKE INSERT, UPDATE, DELETE ON taskcast.migration FROM taskcast_server;

-- Tables that later migrations make.
ALTER DEFAULT PRIVILEGES FOR ROLE taskcast_owner IN SCHEMA taskcast
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO taskcast_server;

-- Nothing is granted on sequences, since the numbers come from identity
-- columns, and nothing for LISTEN and NOTIFY, which need no privilege.
