//! PgBouncer in transaction mode, in front of a database of the tests.
//!
//! `TASKCAST_TEST_POOLER` puts one between every server that a test starts on
//! Postgres and its database: `beside` leaves the direct way to what needs a
//! session of its own, `between` lets nothing by, so that the server does not
//! listen and has to poll.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::{environment_variable, until};

/// Says whether servers reach their database through a pooler.
const VARIABLE: &str = "TASKCAST_TEST_POOLER";

/// What to do where there is no pooler.
const MISSING: &str = "this test needs PgBouncer; install it with: sudo apt-get install pgbouncer";

/// Where a pooler stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Beside the direct way.
    Beside,
    /// In the only way.
    Between,
}

impl Pooling {
    /// Returns what the environment asks for.
    pub fn wanted() -> Option<Self> {
        match environment_variable(VARIABLE).as_deref() {
            None | Some("") => None,
            Some("beside") => Some(Self::Beside),
            Some("between") => Some(Self::Between),
            Some(other) => panic!("{VARIABLE} is beside or between, not {other}"),
        }
    }
}

/// A private PgBouncer in transaction mode.
#[derive(Debug)]
pub struct Pooler {
    child: Child,
    port: u16,
    user: String,
    name: String,
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
    /// Starts a pooler for the database at `url`.
    pub async fn start(url: &str) -> Self {
        let target = Target::parse(url);
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap().port()
        };
        let directory = tempfile::tempdir().unwrap();
        // Readable for the user it runs as, when the test runs as root.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, settings(&target, port)).unwrap();
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
        let (user, name) = (target.user.to_owned(), target.name.to_owned());
        Self { child, port, user, name, _directory: directory }
    }

    /// Returns the URL of the database through the pooler.
    pub fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// Returns the same by another name of the machine, which a server cannot
    /// know to be the same.
    pub fn other_url(&self) -> String {
        self.url_at("localhost")
    }

    fn url_at(&self, host: &str) -> String {
        let Self { port, user, name, .. } = self;
        format!("postgres://{user}@{host}:{port}/{name}")
    }
}

fn settings(target: &Target<'_>, listen_port: u16) -> String {
    let Target { user, password, host, port, name } = target;
    let mut settings = format!("[databases]\n{name} = host={host} port={port} user={user}");
    if let Some(password) = password {
        write!(settings, " password={password}").unwrap();
    }
    // Few sessions for many clients, so that they do change hands. A database
    // that comes back is tried again soon.
    write!(
        settings,
        "\n[pgbouncer]\nlisten_addr = localhost\nlisten_port = {listen_port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n\
         server_login_retry = 0.2\nignore_startup_parameters = extra_float_digits\n"
    )
    .unwrap();
    settings
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
