-- What a figure depends on most.
SELECT
    current_setting('server_version') AS "version!",
    current_setting('fsync')::boolean AS "fsync!",
    current_setting('synchronous_commit') AS "synchronous_commit!"
