//! The real program at its command line: help, exit statuses, precedence,
//! refusals, and the migrations it reports.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Child;

use crate::support::client::Client;
use crate::support::place::Place;
use crate::support::postgres::Database;
use crate::support::{Backend, until, within};

impl Place {
    /// Starts a server and waits for the line that says what it is.
    async fn start(&self, arguments: &str) -> Started {
        let child = self.command(arguments).spawn().unwrap();
        Started::watch(child).await
    }
}

/// A running server.
struct Started {
    child: Child,
    /// The line of the log that names address and sources.
    line: Value,
    /// All lines of the log up to that one.
    before: Vec<Value>,
}

impl Started {
    async fn watch(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut before = Vec::new();
        let line = within("the server says where it listens", async {
            loop {
                let text = lines.next_line().await.unwrap().expect("the server ended");
                let line: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
                if line["version"].is_string() {
                    break line;
                }
                before.push(line);
            }
        })
        .await;
        drain(lines.into_inner());
        if let Some(stdout) = child.stdout.take() {
            drain(stdout);
        }
        Self { child, line, before }
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.line["address"].as_str().unwrap()))
    }

    async fn ready(self) -> Self {
        let client = self.client();
        until("the server is ready", || async {
            (client.get("/health/ready").await.status == 200).then_some(())
        })
        .await;
        self
    }

    async fn stop_by(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        let id = self.child.id().unwrap().cast_signed();
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
        let began = std::time::Instant::now();
        let status = within("the server ends", self.child.wait()).await.unwrap();
        assert!(began.elapsed().as_secs() < 10, "stopping took {:?}", began.elapsed());
        status.code()
    }
}

/// Keeps a pipe from filling up.
fn drain(mut pipe: impl AsyncRead + Unpin + Send + 'static) {
    tokio::spawn(async move { tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await });
}

#[tokio::test]
async fn help_names_every_command_and_version_the_version() {
    let place = Place::new();
    let help = place.run("--help").await;
    assert_eq!(help.code, Some(0));
    for command in ["serve", "migrate", "dev", "config", "bench"] {
        assert!(help.stdout.contains(&format!("  {command} ")), "{}", help.stdout);
        assert_eq!(place.run(&format!("{command} --help")).await.code, Some(0));
    }
    let version = place.run("--version").await;
    assert_eq!(version.code, Some(0));
    assert_eq!(version.stdout.trim(), format!("taskcast {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn wrong_usage_ends_with_status_two() {
    for arguments in ["--prot 1", "serv", "-p many", "migrate --check --dry-run", "-p 1 serve"] {
        let ended = Place::new().run(arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty());
    }
}

#[tokio::test]
async fn the_command_may_be_left_out() {
    let place = Place::new().file("other.yaml", "logLevel: debug\n");
    let server = place.start("-p 0 -c other.yaml --host 127.0.0.1").await.ready().await;
    assert_eq!(server.line["storage"], "memory");
    assert_eq!(server.line["port.source"], "flag --port");
}

#[tokio::test]
async fn flags_win_over_variables_over_the_file() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port();
    let place = Place::new().yaml(&format!("port: {taken}\nhost: 127.0.0.1\n"));
    place.refused("serve", &["taskcast.config.yaml", &taken.to_string(), "another program"]).await;

    let place = place.env("PORT", "x").env("TASKCAST_PORT", "0");
    let server = place.start("serve").await;
    assert_eq!(server.line["port.source"], "variable TASKCAST_PORT");

    let place = place.env("TASKCAST_PORT", taken.to_string());
    let server = place.start("serve --port 0").await;
    assert_eq!(server.line["port.source"], "flag --port");
}

#[tokio::test]
async fn variables_of_the_platform_are_the_last_resort_and_named() {
    let database = Database::migrated().await;
    let place = Place::new().env("PORT", "0").env("DATABASE_URL", database.url());
    let mut server = place.start("serve --host 127.0.0.1").await.ready().await;
    assert_eq!(server.line["port.source"], "variable PORT");
    assert_eq!(server.line["database.source"], "variable DATABASE_URL");
    assert_eq!(server.line["storage"], "postgres");
    assert_eq!(server.stop_by(rustix::process::Signal::TERM).await, Some(0));

    let place = place.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x");
    let place = place.env("TASKCAST_POSTGRES_URL", database.url());
    let server = place.start("serve --host 127.0.0.1").await.ready().await;
    assert_eq!(server.line["database.source"], "variable TASKCAST_POSTGRES_URL");
}

#[tokio::test]
async fn unknown_variables_and_the_port_of_kubernetes_warn() {
    let place = Place::new()
        .env("TASKCAST_PROT", "1")
        .env("TASKCAST_PORT", "tcp://10.0.0.1:3721")
        .env("PORT", "0");
    let server = place.start("serve --host 127.0.0.1").await;
    let warnings: Vec<&str> = server
        .before
        .iter()
        .filter(|line| line["level"] == "WARN")
        .filter_map(|line| line["message"].as_str())
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("TASKCAST_PROT")));
    assert!(warnings.iter().any(|warning| warning.contains("tcp://10.0.0.1:3721")));
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_one_sentence_without_the_password() {
    let place = Place::new().env("TASKCAST_POSTGRES_URL", "postgres://u:canary@127.0.0.1:1/x");
    for command in ["migrate", "migrate --check", "serve --port 0"] {
        let said = place.refused(command, &["connect"]).await;
        assert!(!said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn migrate_without_a_database_says_how_to_name_one() {
    Place::new().refused("migrate", &["TASKCAST_POSTGRES_URL", "--postgres-url"]).await;
}

#[tokio::test]
async fn a_database_that_is_not_migrated_is_refused_with_the_command_to_run() {
    let database = Database::empty().await;
    let place = Place::new().env("TASKCAST_POSTGRES_URL", database.url());
    place.refused("serve --port 0", &["taskcast migrate"]).await;
    place.refused("migrate --check", &["taskcast migrate", "not up to date"]).await;

    let plan = place.run("migrate --dry-run").await;
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    assert!(plan.stdout.contains("CREATE TABLE"), "{}", plan.stdout);
    place.refused("migrate --check", &["taskcast migrate"]).await;

    let migrated = place.run("migrate").await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    assert!(migrated.stdout.contains("applied "), "{}", migrated.stdout);
    assert_eq!(place.run("migrate --check").await.code, Some(0));
    let plan = place.run("migrate --dry-run").await;
    assert!(!plan.stdout.contains("CREATE"), "{}", plan.stdout);
    place.start("serve --port 0 --host 127.0.0.1").await.ready().await;
}

#[tokio::test]
async fn serve_migrates_first_when_asked_to() {
    let database = Database::empty().await;
    let place = Place::new().env("TASKCAST_POSTGRES_URL", database.url());
    let server = place.start("serve --migrate --port 0 --host 127.0.0.1").await.ready().await;
    server.client().new_task().await;
}

#[tokio::test]
async fn a_signal_ends_the_server_with_status_zero_although_a_stream_is_open() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut server = Place::new().start("serve --port 0 --host 127.0.0.1").await.ready().await;
        let client = server.client();
        let task = client.running_task().await;
        let _stream = client.stream(&task, "").await;
        assert_eq!(server.stop_by(signal).await, Some(0));
    }
}

#[tokio::test]
async fn an_open_server_warns_and_one_on_loopback_does_not() {
    let warns = |host: &'static str| async move {
        let place = Place::new();
        let mut server = place.command(&format!("serve --port 0 --host {host}")).spawn().unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        // The warning about memory is there either way, and the one in question
        // comes right after it.
        within("the server warns about memory", async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("kept in memory") {
                    return;
                }
            }
        })
        .await;
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(server.id().unwrap().cast_signed()).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let mut rest = String::new();
        while let Some(line) = within("the log ends", lines.next_line()).await.unwrap() {
            rest.push_str(&line);
        }
        rest.contains("authentication is off")
    };
    assert!(warns("0.0.0.0").await);
    assert!(!warns("127.0.0.1").await);
}

#[tokio::test]
async fn a_server_of_its_own_backend_needs_no_flags() {
    // The support code starts servers by flags; this one by variables alone.
    let Backend::Postgres(database) = Backend::postgres().await else { unreachable!() };
    let place = Place::new()
        .env("TASKCAST_POSTGRES_URL", database.url())
        .env("TASKCAST_PORT", "0")
        .env("TASKCAST_HOST", "127.0.0.1");
    let server = place.start("").await.ready().await;
    server.client().new_task().await;
}
