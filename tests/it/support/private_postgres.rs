//! A Postgres of a test's own, for tests that break it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use taskcast::local_postgres::{LocalPostgres, Options, find_binaries, install_command};

use super::postgres::Database;
use super::{environment_variable, until, within};

/// Waits for the test to go away, ends the server it left and removes its
/// directory. The server is asked for by its directory, because it may have
/// been started again under another number.
const REMOVE: &str = r#"
while kill -0 "$1"; do sleep 0.5; done
pid=$(head -n 1 "$2/data/postmaster.pid")
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" || echo "$2/data")" = "$2/data" ]; then
    kill -QUIT "$pid"
    while kill -0 "$pid"; do sleep 0.1; done
fi
rm -rf "$2"
"#;

/// A running server with durable commits, which the test may stop, crash and
/// start again.
#[derive(Debug)]
pub struct PrivatePostgres {
    directory: PathBuf,
    running: Option<LocalPostgres>,
}

impl PrivatePostgres {
    /// Finds a directory for a server.
    fn reserve() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        // Not below a directory that only this user can enter: a server of root's
        // runs under an account of its own.
        let directory =
            std::env::temp_dir().join(format!("taskcast-test-{process}-private-{number}"));
        watch(&directory);
        Self { directory, running: None }
    }

    /// Initialises and starts a server.
    pub async fn start() -> Self {
        let mut postgres = Self::reserve();
        postgres.start_again().await;
        postgres
    }

    /// Starts a standby that has everything this server commits from now on.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::reserve();
        let search_path = environment_variable("PATH").map(OsString::from);
        let binaries = find_binaries(search_path.as_deref());
        let (from, to) = (&self.directory, &standby.directory);
        std::fs::create_dir(to).unwrap();
        std::fs::copy(from.join("password"), to.join("password")).unwrap();
        // The search path may lead to links to some of the programs alone.
        let programs = binaries.iter().map(|found| found.directory().join("pg_basebackup"));
        let program = programs.into_iter().find(|program| program.exists());
        run(Command::new(program.expect("pg_basebackup belongs to Postgres"))
            .args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "-d"])
            .arg(self.admin_url())
            .arg("-D")
            .arg(to.join("data")));
        hand_over(&from.join("data"), to);
        standby.start_again().await;
        let mut admin = PgConnection::connect(&self.admin_url()).await.unwrap();
        for statement in
            ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"]
        {
            admin.execute(statement).await.unwrap();
        }
        until("the standby is synchronous", || async {
            let mut admin = PgConnection::connect(&self.admin_url()).await.unwrap();
            let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            (sqlx::query_scalar::<_, i64>(sync).fetch_one(&mut admin).await.unwrap() > 0)
                .then_some(())
        })
        .await;
        standby
    }

    /// Stops the server and starts it again as a standby that follows nobody.
    pub async fn demote(&mut self) {
        let running = self.running.take().expect("it runs");
        within("Postgres is gone", running.stop()).await.expect("Postgres should stop");
        let signal = self.directory.join("data/standby.signal");
        std::fs::write(&signal, "").unwrap();
        hand_over(&self.directory.join("data"), &signal);
        self.start_again().await;
    }

    /// Makes a standby a primary and waits until it is.
    pub async fn promote(&self) {
        let mut admin = PgConnection::connect(&self.admin_url()).await.unwrap();
        let promoted = sqlx::query_scalar::<_, bool>("SELECT pg_promote(true, 30)");
        assert!(promoted.fetch_one(&mut admin).await.unwrap());
    }

    /// Returns a session of a superuser that may write whatever happens.
    pub async fn admin(&self) -> PgConnection {
        let mut admin = PgConnection::connect(&self.admin_url()).await.unwrap();
        admin.execute("SET default_transaction_read_only = off").await.unwrap();
        admin
    }

    /// Starts the server after it was stopped and waits until it takes
    /// connections; its port may be another one.
    pub async fn start_again(&mut self) {
        let search_path = environment_variable("PATH").map(OsString::from);
        let binaries = find_binaries(search_path.as_deref());
        let install = install_command(search_path.as_deref()).unwrap_or_default();
        assert!(
            !binaries.is_empty(),
            "this test breaks a Postgres of its own and found no programs for it: {install}"
        );
        let options =
            Options::persistent(&self.directory, binaries).setting("max_connections", "200");
        let started = LocalPostgres::start(options).await;
        self.running = Some(started.expect("the test's own Postgres should start"));
    }

    /// Stops the server as `pg_ctl stop -m immediate` does: every process
    /// ends where it stands, and the next start recovers from the log.
    pub async fn stop_at_once(&mut self) {
        let running = self.running.take().expect("it runs");
        kill_process(self.postmaster(), Signal::QUIT).unwrap();
        within("Postgres is gone", running.stop()).await.expect("Postgres should stop");
    }

    /// Kills the backend of one session of an application with SIGKILL, upon
    /// which the server ends all others and recovers. Waits until it has.
    pub async fn kill_backend(&self, application: &str) {
        let mut admin = PgConnection::connect(&self.admin_url()).await.unwrap();
        let statement = format!(
            "SELECT pid FROM pg_stat_activity WHERE application_name = '{application}' LIMIT 1"
        );
        let pid = loop {
            let asked = sqlx::query_scalar::<_, i32>(AssertSqlSafe(statement.clone()));
            // Between two connections of a session there may be none.
            if let Some(pid) = asked.fetch_optional(&mut admin).await.unwrap() {
                break pid;
            }
        };
        kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).unwrap();
        within("the server ends its sessions", async { while admin.ping().await.is_ok() {} }).await;
        until("the server has recovered", || async {
            PgConnection::connect(&self.admin_url()).await.ok().map(drop)
        })
        .await;
    }

    /// Returns the port on loopback.
    pub fn port(&self) -> u16 {
        self.running.as_ref().expect("it runs").port()
    }

    /// Makes a database with the current schema.
    pub async fn database(&self) -> Database {
        Database::migrated_on(&self.admin_url()).await
    }

    fn admin_url(&self) -> String {
        self.running.as_ref().expect("it runs").url("postgres")
    }

    fn postmaster(&self) -> Pid {
        let file = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let number = file.lines().next().and_then(|line| line.parse().ok());
        number.and_then(Pid::from_raw).expect("the server's process")
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if self.running.is_some() {
            // What is left is the watchdog's.
            kill_process(self.postmaster(), Signal::QUIT).ok();
        }
    }
}

/// Runs a program that has to succeed.
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Gives files to the account that owns others.
fn hand_over(like: &Path, path: &Path) {
    let reference = format!("--reference={}", like.display());
    run(Command::new("chown").arg("-R").arg(reference).arg(path));
}

#[expect(clippy::zombie_processes, reason = "it outlives this process on purpose")]
fn watch(directory: &Path) {
    Command::new("/bin/sh")
        .args(["-c", REMOVE, "taskcast-test-watchdog", &std::process::id().to_string()])
        .arg(directory)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell should start");
}
