//! Finds or makes a Postgres for the tests, and gives each test a database.
//!
//! In this order: the server that `TASKCAST_TEST_POSTGRES_URL` names (as a
//! superuser), a private cluster from the Postgres programs of this machine, a
//! container. All processes of one test run share it. The first of them starts
//! it; a small shell process that outlives every test waits for the runner to
//! go away and then removes it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use taskcast::local_postgres::{
    Binaries, Durability, LocalPostgres, Options, Origin, find_binaries, install_command,
};
use testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, ImageExt as _};
use tokio::sync::OnceCell;

use super::pooler::{Pooler, Pooling};
use super::{environment_variable, within};

/// Names the server to use instead of a private one.
const URL_VARIABLE: &str = "TASKCAST_TEST_POSTGRES_URL";

/// Guards the making of the template database.
const TEMPLATE_LOCK: i64 = 0x7461_736b_7465_7374;

/// Enough for every test that runs at once, two servers each.
const MAX_CONNECTIONS: &str = "300";

/// Waits for the runner, ends the server and removes its directory.
///
/// The pid file is compared so that a number given to another process since is
/// never signalled.
const REMOVE_CLUSTER: &str = r#"
while kill -0 "$1"; do sleep 0.5; done
if [ "$(head -n 1 "$2/data/postmaster.pid")" = "$3" ]; then
    kill -QUIT "$3"
    while kill -0 "$3"; do sleep 0.1; done
fi
rm -rf "$2"
"#;

/// Waits for the runner and removes the container.
const REMOVE_CONTAINER: &str = r#"
while kill -0 "$1"; do sleep 0.5; done
docker rm --force "$3" || podman rm --force "$3"
rm -rf "$2"
"#;

/// The server all tests of a run share.
#[derive(Debug)]
struct Shared {
    admin_url: String,
    template: String,
    /// Held so that the cluster counts as used while this process lives.
    _cluster: Option<LocalPostgres>,
}

async fn shared() -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let (admin_url, cluster) = find_server().await;
            let template = ensure_template(&admin_url).await;
            Shared { admin_url, template, _cluster: cluster }
        })
        .await
}

async fn find_server() -> (String, Option<LocalPostgres>) {
    if let Some(url) = environment_variable(URL_VARIABLE) {
        return (url, None);
    }
    let search_path = environment_variable("PATH").map(OsString::from);
    let binaries = find_binaries(search_path.as_deref());
    if !binaries.is_empty() {
        let cluster = start_cluster(binaries).await;
        return (cluster.url("postgres"), Some(cluster));
    }
    let install = install_command(search_path.as_deref())
        .map_or_else(|| "Install PostgreSQL".to_owned(), |command| format!("Run `{command}`"));
    match container_url().await {
        Ok(url) => (url, None),
        Err(failure) => panic!(
            "these tests need a Postgres and found none. {install}, or set {URL_VARIABLE} to the URL of a \
             superuser on a server they may create databases on, or start a container engine ({failure})"
        ),
    }
}

/// Returns the process that runs the tests and a directory for this run.
fn run() -> (u32, PathBuf) {
    let runner = std::os::unix::process::parent_id();
    let mut name = format!("taskcast-test-{runner}");
    if let Some(run) = environment_variable("NEXTEST_RUN_ID") {
        write!(name, "-{}", &run[..run.len().min(8)]).unwrap();
    }
    (runner, std::env::temp_dir().join(name))
}

async fn start_cluster(binaries: Vec<Binaries>) -> LocalPostgres {
    let (runner, directory) = run();
    let options =
        Options { durability: Durability::Disposable, ..Options::persistent(&directory, binaries) }
            .setting("max_connections", MAX_CONNECTIONS)
            .setting("max_wal_senders", "0")
            .setting("wal_level", "minimal")
            .setting("autovacuum", "off");
    let cluster = LocalPostgres::start(options)
        .await
        .expect("the private Postgres of the tests should start");
    if cluster.origin() != Origin::Adopted {
        let pid_file =
            std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap_or_default();
        spawn_watchdog(
            REMOVE_CLUSTER,
            runner,
            &directory,
            pid_file.lines().next().unwrap_or_default(),
        );
    }
    cluster
}

#[expect(clippy::zombie_processes, reason = "it outlives this process on purpose")]
fn spawn_watchdog(script: &str, runner: u32, directory: &Path, target: &str) {
    // Without the runner's pipes, which it would wait for, and in a group of
    // its own, so that what ends the tests does not end it.
    Command::new("/bin/sh")
        .args(["-c", script, "taskcast-test-watchdog", &runner.to_string()])
        .arg(directory)
        .arg(target)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell should start");
}

/// Starts a container for this run, or finds the one another process started.
async fn container_url() -> Result<String, String> {
    let (runner, directory) = run();
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let lock = std::fs::File::create(directory.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let known = directory.join("url");
    if let Ok(url) = std::fs::read_to_string(&known) {
        return Ok(url);
    }
    let ready = WaitFor::message_on_stderr("database system is ready to accept connections");
    let container = GenericImage::new("postgres", "17-alpine")
        .with_exposed_port(5432.tcp())
        .with_wait_for(ready)
        .with_env_var("POSTGRES_PASSWORD", "postgres")
        .with_cmd([
            "postgres",
            "-c",
            "fsync=off",
            "-c",
            &format!("max_connections={MAX_CONNECTIONS}"),
        ])
        .start()
        .await
        .map_err(|error| error.to_string())?;
    let host = container.get_host().await.map_err(|error| error.to_string())?;
    let port = container.get_host_port_ipv4(5432).await.map_err(|error| error.to_string())?;
    let url = format!("postgres://postgres:postgres@{host}:{port}/postgres");
    spawn_watchdog(REMOVE_CONTAINER, runner, &directory, container.id());
    // Dropping the handle would remove the container while other processes use it.
    Box::leak(Box::new(container));
    // The image restarts its server once after the first ready message.
    super::until("the container takes connections", || async {
        PgConnection::connect(&url).await.ok()
    })
    .await;
    std::fs::write(&known, &url).map_err(|error| error.to_string())?;
    Ok(url)
}

/// Returns `url` with another database in it.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(a, p)| (a, Some(p)));
    let authority_at = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority_at..].find('/').map_or(address.len(), |at| authority_at + at);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    format!("{}/{database}{parameters}", &address[..end])
}

async fn connect(url: &str) -> PgConnection {
    let options = PgConnectOptions::from_str(url)
        .unwrap_or_else(|error| panic!("not a Postgres URL: {error}"))
        .disable_statement_logging();
    within("Postgres takes a connection", PgConnection::connect_with(&options))
        .await
        .unwrap_or_else(|error| panic!("Postgres refuses a connection: {error}"))
}

async fn execute(connection: &mut PgConnection, statement: String) {
    let shown = statement.clone();
    connection
        .execute(AssertSqlSafe(statement))
        .await
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
}

/// Makes the database that the tests' databases are copies of, once per state
/// of the migrations, by the program's own `migrate`.
async fn ensure_template(admin_url: &str) -> String {
    let template = format!("taskcast_template_{:016x}", migrations_hash());
    let mut admin = connect(admin_url).await;
    if !database_exists(&mut admin, &template).await {
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(TEMPLATE_LOCK)
            .execute(&mut admin)
            .await
            .unwrap();
        if !database_exists(&mut admin, &template).await {
            // Renamed when it is complete, so that nobody copies half of it.
            let draft = format!("{template}_draft");
            execute(&mut admin, format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await;
            execute(
                &mut admin,
                format!("CREATE DATABASE {draft} ENCODING 'UTF8' TEMPLATE template0"),
            )
            .await;
            let migrated = Command::new(super::server::PROGRAM)
                .arg("migrate")
                .env_clear()
                .env("TASKCAST_POSTGRES_URL", with_database(admin_url, &draft))
                .current_dir(std::env::temp_dir())
                .output()
                .expect("the program should start");
            assert!(
                migrated.status.success(),
                "migrate failed: {}{}",
                String::from_utf8_lossy(&migrated.stdout),
                String::from_utf8_lossy(&migrated.stderr)
            );
            execute(&mut admin, format!("ALTER DATABASE {draft} RENAME TO {template}")).await;
        }
    }
    admin.close().await.ok();
    template
}

async fn database_exists(admin: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await
        .unwrap()
}

fn migrations_hash() -> u64 {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hasher);
        std::fs::read(file).unwrap().hash(&mut hasher);
    }
    hasher.finish()
}

/// A database of one test; it is dropped with its last handle.
#[derive(Debug, Clone)]
pub struct Database(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    admin_url: String,
    name: String,
    pooler: OnceCell<Pooler>,
}

impl Database {
    /// Makes a database with the current schema.
    pub async fn migrated() -> Self {
        let shared = shared().await;
        Self::create(shared, &shared.template).await
    }

    /// Makes a database with nothing in it.
    pub async fn empty() -> Self {
        Self::create(shared().await, "template0").await
    }

    /// Makes a database with the current schema on a server of the test's own.
    pub async fn migrated_on(admin_url: &str) -> Self {
        let template = ensure_template(admin_url).await;
        Self::create_on(admin_url, &template).await
    }

    async fn create(shared: &Shared, template: &str) -> Self {
        Self::create_on(&shared.admin_url, template).await
    }

    async fn create_on(admin_url: &str, template: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let name = format!("taskcast_test_{process}_{made}");
        let mut admin = connect(admin_url).await;
        // Left over from a run that was killed, under the same process id.
        execute(&mut admin, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        execute(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        admin.close().await.ok();
        let admin_url = admin_url.to_owned();
        Self(Arc::new(Owned { admin_url, name, pooler: OnceCell::new() }))
    }

    /// Returns the URL of the database, as a superuser.
    pub fn url(&self) -> String {
        with_database(&self.0.admin_url, &self.0.name)
    }

    /// Returns the environment that leads a server to the database.
    pub async fn server_environment(&self) -> Vec<(&'static str, String)> {
        let (url, direct_url) = ("TASKCAST_POSTGRES_URL", "TASKCAST_POSTGRES_DIRECT_URL");
        let Some(pooling) = Pooling::wanted() else { return vec![(url, self.url())] };
        let pooler = self.0.pooler.get_or_init(|| async { Pooler::start(&self.url()).await }).await;
        match pooling {
            Pooling::Beside => vec![(url, pooler.url()), (direct_url, self.url())],
            Pooling::Between => vec![
                (url, pooler.url()),
                (direct_url, pooler.other_url()),
                ("TASKCAST_POSTGRES__LISTEN", "false".to_owned()),
            ],
        }
    }

    /// Returns the name of the database.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Opens a connection to the database.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url()).await
    }

    /// Opens a connection to another database of the same server.
    pub async fn connect_beside(&self) -> PgConnection {
        connect(&self.0.admin_url).await
    }

    /// Runs a statement in the database.
    pub async fn execute(&self, statement: &str) {
        let mut connection = self.connect().await;
        execute(&mut connection, statement.to_owned()).await;
        connection.close().await.ok();
    }

    /// Cuts every connection and lets nobody in until [`Self::let_in`].
    pub async fn shut_out(&self) {
        let mut admin = connect(&self.0.admin_url).await;
        execute(&mut admin, format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name()))
            .await;
        self.terminate(&mut admin, "true").await;
        admin.close().await.ok();
    }

    /// Takes connections again.
    pub async fn let_in(&self) {
        let mut admin = connect(&self.0.admin_url).await;
        execute(&mut admin, format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name())).await;
        admin.close().await.ok();
    }

    /// Terminates the sessions of an application; returns how many there were.
    pub async fn terminate_application(&self, application: &str) -> usize {
        let mut admin = connect(&self.0.admin_url).await;
        let ended =
            self.terminate(&mut admin, &format!("application_name = '{application}'")).await;
        admin.close().await.ok();
        ended
    }

    async fn terminate(&self, admin: &mut PgConnection, condition: &str) -> usize {
        let statement = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}' AND {condition}",
            self.name()
        );
        sqlx::query(AssertSqlSafe(statement)).fetch_all(admin).await.unwrap().len()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let (url, name) = (self.admin_url.clone(), self.name.clone());
        drop(self.pooler.take());
        // A test's runtime may be gone or busy by now, so the farewell has its own.
        let farewell = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect(&url).await.map_err(std::io::Error::other)?;
                let dropped = admin
                    .execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
                    .await;
                dropped.map(drop).map_err(std::io::Error::other)
            })
        });
        // A database that stays behind harms nobody, so failing here would be noise.
        farewell.join().ok();
    }
}

#[test]
fn a_database_name_is_replaced_wherever_it_stands() {
    for (url, expected) in [
        ("postgres://u:p@h:1/postgres?sslmode=disable", "postgres://u:p@h:1/x?sslmode=disable"),
        ("postgres://u@h", "postgres://u@h/x"),
        ("postgres://u@h/?host=/tmp", "postgres://u@h/x?host=/tmp"),
    ] {
        assert_eq!(with_database(url, "x"), expected);
    }
}
