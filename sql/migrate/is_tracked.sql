SELECT to_regclass('taskcast.migration') IS NOT NULL AS "is_tracked!"
