//! A transaction pooler between the server and its database.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::column;
use crate::support::postgres::Database;
use crate::support::sse::members;
use crate::support::{Backend, until};

/// What to do where there is no pooler.
const MISSING: &str = "this test needs PgBouncer; install it with: sudo apt-get install pgbouncer";

/// A private PgBouncer in transaction mode.
struct Pooler {
    child: Child,
    url: String,
    _directory: TempDir,
}

/// The parts of a database's URL.
struct Target<'a> {
    user: &'a str,
    password: Option<&'a str>,
    host: &'a str,
    port: &'a str,
    name: &'a str,
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Self {
        let (_, rest) = url.split_once("://").expect("a scheme");
        let (credentials, rest) = rest.rsplit_once('@').expect("a user");
        let (address, name) = rest.split_once('/').expect("a database");
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
        Self { user, password, host, port, name: name.split('?').next().unwrap_or(name) }
    }
}

impl Pooler {
    async fn start(database: &Database) -> Self {
        let url = database.url();
        let target = Target::parse(&url);
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap().port()
        };
        let directory = tempfile::tempdir().unwrap();
        // Readable for the user it runs as, when the test runs as root.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let Target { user, password, host, name, .. } = target;
        let mut settings =
            format!("[databases]\n{name} = host={host} port={} user={user}", target.port);
        if let Some(password) = password {
            write!(settings, " password={password}").unwrap();
        }
        // Few sessions for many clients, so that they do change hands.
        write!(
            settings,
            "\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
        )
        .unwrap();
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new("pgbouncer");
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
        {
            // It refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{MISSING}"),
            Err(error) => panic!("pgbouncer: {error}"),
        };
        until("the pooler listens", || async {
            TcpStream::connect(("127.0.0.1", port)).await.ok().map(|_| ())
        })
        .await;
        let url = format!("postgres://{user}@127.0.0.1:{port}/{name}");
        Self { child, url, _directory: directory }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_through_a_pooler_that_hands_sessions_around() {
    let database = Database::migrated().await;
    let direct = database.url();
    let pooler = Pooler::start(&database).await;
    let backend = Backend::Postgres(database);
    let environment =
        [("TASKCAST_POSTGRES_URL", &*pooler.url), ("TASKCAST_POSTGRES_DIRECT_URL", &*direct)];
    let (first, second) =
        tokio::join!(backend.start_with(&environment), backend.start_with(&environment));

    let ids = join_all((0..8).map(|_| first.running_task())).await;
    let readers: Vec<_> = ids
        .iter()
        .map(|id| {
            let (server, id) = (second.clone(), id.clone());
            tokio::spawn(async move { server.stream(&id, "").await.rest().await })
        })
        .collect();
    let write = |id: String| {
        let (first, second) = (first.clone(), second.clone());
        async move {
            for n in 0..40 {
                // Both write, so that lanes lock as well.
                let server = if n % 4 == 0 { &second } else { &first };
                server.publish(&id, json!({"type": "n", "data": n})).await;
            }
            first.enter(&id, "completed").await;
        }
    };
    join_all(ids.iter().cloned().map(write)).await;
    for (id, reader) in ids.iter().zip(readers) {
        let mut frames = reader.await.unwrap();
        assert!(frames.pop().unwrap().is_done());
        let data = members(&frames[1..frames.len() - 1], "data");
        assert_eq!(data, (0..40).map(Value::from).collect::<Vec<_>>());
        assert_eq!(members(&frames, "eventId"), column(&first.history(id, "").await, "id"));
    }
    let page = first.get("/tasks?status=completed").await.expect(200).json();
    assert_eq!(page["tasks"].as_array().unwrap().len(), 8);
    first.delete(&format!("/tasks/{}", ids[0])).await.expect(204);
    second.get(&format!("/tasks/{}", ids[0])).await.refused(404, "task_not_found");
}
