SELECT to_regnamespace('taskcast') IS NOT NULL AS "has_schema!"
