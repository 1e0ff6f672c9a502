//! `taskcast dev`: its private database over restarts, kills and neighbours,
//! and what it prints.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use taskcast::config::Environment;
use taskcast::local_postgres::{find_binaries, install_command};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::support::client::Client;
use crate::support::postgres::Database;
use crate::support::server::PROGRAM;
use crate::support::{until, within};

/// A home for private databases, removed with whatever still runs in it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let environment = Environment::from_process();
        let search_path = environment.get("PATH").map(OsStr::new);
        let how = install_command(search_path).unwrap_or_default();
        assert!(
            !find_binaries(search_path).is_empty(),
            "these tests need the Postgres programs on this machine, also when the others use a server: {how}"
        );
        // As root, the database runs as somebody else, who must get in.
        let everyone_enters = Permissions::from_mode(0o755);
        Self(tempfile::Builder::new().permissions(everyone_enters).tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("taskcast/data")
    }

    /// Returns the process of the database that runs here.
    fn postgres(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.parse().ok()?)
    }

    async fn start(&self) -> Dev {
        self.start_with(&[]).await
    }

    async fn start_with(&self, environment: &[(&str, &str)]) -> Dev {
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--port", "0"])
            .env_clear()
            .env("XDG_DATA_HOME", self.0.path())
            .envs(environment.iter().copied())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (printed, logged) = (Lines::default(), Lines::default());
        printed.collect(child.stdout.take().unwrap());
        logged.collect(child.stderr.take().unwrap());
        let child = Mutex::new(child);
        let url = until("dev says where it is ready", || async {
            let ended = child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "dev ended: {}", logged.text());
            let text = printed.text();
            let rest = text.split_once("ready at ")?.1;
            // All of it is there once its last line is.
            (printed.curls().len() == 3).then(|| rest.split(". ").next().unwrap().to_owned())
        })
        .await;
        let child = child.into_inner().unwrap();
        Dev { child, client: Client::new(&url), printed, logged }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(postgres) = self.postgres() {
            // Fails only when it has just ended by itself.
            kill_process(postgres, Signal::QUIT).ok();
        }
    }
}

/// The lines of one pipe so far.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn collect(&self, pipe: impl AsyncRead + Unpin + Send + 'static) {
        let lines = self.clone();
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = pipe.next_line().await {
                lines.0.lock().unwrap().push(line);
            }
        });
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    fn curls(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with("curl ")).cloned().collect()
    }
}

/// A running `dev`.
struct Dev {
    child: Child,
    client: Client,
    printed: Lines,
    logged: Lines,
}

impl Dev {
    fn signal(&self, signal: Signal) {
        let id = self.child.id().unwrap().cast_signed();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = within("dev ends", self.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.logged.text());
    }

    async fn kill(mut self) {
        self.signal(Signal::KILL);
        within("dev is gone", self.child.wait()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_survive_a_restart_and_the_database_stops_with_dev() {
    let home = Home::new();
    let first = home.start().await;
    assert!(home.postgres().is_some(), "{}", first.logged.text());
    let task = first.client.new_task().await;
    first.stop().await;
    assert_eq!(home.postgres(), None);

    let second = home.start().await;
    second.client.task(&task).await;
    second.stop().await;
    assert_eq!(home.postgres(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_left_by_a_killed_dev_is_adopted() {
    let home = Home::new();
    let first = home.start().await;
    let task = first.client.new_task().await;
    let postgres = home.postgres();
    first.kill().await;
    assert_eq!(home.postgres(), postgres);

    let second = home.start().await;
    assert_eq!(home.postgres(), postgres, "{}", second.logged.text());
    second.client.task(&task).await;
    second.stop().await;
    assert_eq!(home.postgres(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devs_at_once_share_a_database_that_the_last_one_stops() {
    let home = Home::new();
    let (first, second) = tokio::join!(home.start(), home.start());
    let task = first.client.new_task().await;
    second.client.task(&task).await;
    first.stop().await;
    assert!(home.postgres().is_some());
    second.client.task(&task).await;
    second.stop().await;
    assert_eq!(home.postgres(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_homes_have_two_databases() {
    let (here, there) = (Home::new(), Home::new());
    let (first, second) = tokio::join!(here.start(), there.start());
    assert_ne!(here.postgres(), there.postgres());
    let task = first.client.new_task().await;
    assert_eq!(second.client.get(&format!("/tasks/{task}")).await.status, 404);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configured_database_is_used_and_a_stray_one_is_not() {
    let home = Home::new();
    let stray = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/stray");
    let private = home.start_with(&[stray, ("PORT", "1")]).await;
    assert!(home.postgres().is_some());
    private.stop().await;

    let home = Home::new();
    // Not migrated yet: dev does that itself.
    let database = Database::empty().await;
    let configured = home.start_with(&[stray, ("TASKCAST_POSTGRES_URL", &database.url())]).await;
    let task = configured.client.new_task().await;
    assert!(!home.data().exists());
    configured.stop().await;
    let again = home.start_with(&[("TASKCAST_POSTGRES_URL", &database.url())]).await;
    again.client.task(&task).await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_used_when_the_configuration_asks_for_it() {
    let home = Home::new();
    let dev = home.start_with(&[("TASKCAST_ADAPTERS__SHORT_TERM__PROVIDER", "memory")]).await;
    assert!(!home.data().exists());
    dev.client.new_task().await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_the_database_is_for_its_owner_alone() {
    let home = Home::new();
    let dev = home.start().await;
    let mode = |name: &str| {
        let path = home.0.path().join("taskcast").join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("password"), 0o600);
    let password = fs::read_to_string(home.0.path().join("taskcast/password")).unwrap();
    assert!(!dev.logged.text().contains(&password));
    assert!(!dev.printed.text().contains(&password));
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_start_prints_three_requests_about_a_task_of_its_own() {
    let home = Home::new();
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let dev = home.start().await;
        let curls = dev.printed.curls();
        let (_, task) = curls[2].split_once("/tasks/").unwrap();
        let task = task.strip_suffix("/events").unwrap().to_owned();
        assert!(curls[0].contains(&format!(r#""id":"{task}""#)), "{curls:?}");
        assert!(curls[1].contains(&format!("/tasks/{task}/events")), "{curls:?}");
        let made = dev.client.post("/tasks", format!(r#"{{"id":"{task}"}}"#)).await;
        assert_eq!(made.status, 201, "{}", made.text);
        tasks.push(task);
        dev.stop().await;
    }
    assert_ne!(tasks[0], tasks[1]);
}
