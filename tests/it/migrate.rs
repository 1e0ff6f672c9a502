//! `taskcast migrate` beside what is in the database already.

use futures_util::future::join_all;
use sqlx::Row as _;
use tokio::process::Command;

use crate::support::Backend;
use crate::support::postgres::Database;
use crate::support::server::PROGRAM;

/// Tables of an application that has the same names as ours.
const OF_THE_USER: &str = "
    CREATE TABLE public._sqlx_migrations (
        version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT now(),
        success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL
    );
    INSERT INTO public._sqlx_migrations VALUES (20200101000000, 'theirs', now(), true, '\\x00ff', 7);
    CREATE TABLE public.tasks (id serial PRIMARY KEY, title text NOT NULL);
    INSERT INTO public.tasks (title) SELECT 'task ' || n FROM generate_series(1, 100) n;
    CREATE TABLE public.events (id serial PRIMARY KEY, task_id int REFERENCES public.tasks, at timestamptz DEFAULT now());
    INSERT INTO public.events (task_id) SELECT n FROM generate_series(1, 100) n;
    CREATE INDEX ON public.events (at);
    CREATE TYPE public.task_status AS ENUM ('open', 'shut');
    CREATE SCHEMA other;
    CREATE VIEW other.view AS SELECT title FROM public.tasks";

/// Everything outside our schema that a migration could have touched.
const OUTSIDE: &str = "
    SELECT format('%s %s.%s %s', c.relkind, n.nspname, c.relname, c.relacl) AS line
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname NOT IN ('taskcast', 'pg_catalog', 'pg_toast', 'information_schema')
    UNION ALL
    SELECT format('column %s.%s %s %s %s', a.attrelid::regclass, a.attname, a.atttypid::regtype, a.attnotnull, a.attnum)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname NOT IN ('taskcast', 'pg_catalog', 'pg_toast', 'information_schema')
    UNION ALL
    SELECT format('function %s', p.oid::regprocedure)
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname NOT IN ('taskcast', 'pg_catalog', 'information_schema')
    UNION ALL
    SELECT format('type %s', t.oid::regtype)
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE n.nspname NOT IN ('taskcast', 'pg_catalog', 'pg_toast', 'information_schema')
    UNION ALL SELECT format('schema %s %s', nspname, nspacl) FROM pg_namespace WHERE nspname !~ '^(taskcast$|pg_)'
    UNION ALL SELECT format('extension %s', extname) FROM pg_extension
    UNION ALL
    SELECT format('trigger %s on %s.%s', t.tgname, n.nspname, c.relname)
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname <> 'taskcast'
    UNION ALL SELECT format('setting %s', setconfig) FROM pg_db_role_setting
               WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'rows ' || (SELECT md5(string_agg(m::text, '|' ORDER BY version)) FROM public._sqlx_migrations m)
    UNION ALL SELECT 'rows ' || (SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM public.tasks t)
    UNION ALL SELECT 'rows ' || (SELECT md5(string_agg(e::text, '|' ORDER BY id)) FROM public.events e)
     ORDER BY line";

async fn outside(database: &Database) -> Vec<String> {
    let mut connection = database.connect().await;
    let rows = sqlx::query(OUTSIDE).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get("line")).collect()
}

/// Names and columns of what is in our schema.
async fn inside(database: &Database) -> Vec<String> {
    let mut connection = database.connect().await;
    sqlx::query_scalar(
        "SELECT format('%s %s %s', c.relname, a.attname, a.atttypid::regtype)
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          WHERE c.relnamespace = 'taskcast'::regnamespace AND a.attnum > 0 ORDER BY 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

async fn migrate(database: &Database) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .arg("migrate")
        .env_clear()
        .env("TASKCAST_POSTGRES_URL", database.url())
        .current_dir(directory.path())
        .output()
        .await
        .unwrap();
    let written = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&written));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_migrations_at_once_succeed_and_touch_nothing_of_the_user() {
    let database = Database::empty().await;
    for statement in OF_THE_USER.split(';') {
        database.execute(statement).await;
    }
    let before = outside(&database).await;
    join_all((0..4).map(|_| migrate(&database))).await;
    assert_eq!(outside(&database).await, before);
    let migrated = inside(&database).await;
    assert!(!migrated.is_empty());

    // Once more changes nothing, and what was made is what a server needs.
    migrate(&database).await;
    assert_eq!(inside(&database).await, migrated);
    let server = Backend::Postgres(database.clone()).start().await;
    let id = server.running_task().await;
    server.enter(&id, "completed").await;
    assert_eq!(server.history(&id, "").await.len(), 2);
    drop(server);
    assert_eq!(outside(&database).await, before);
}
