//! The server process of a private cluster.
//!
//! It is found ready by connecting to it, never by waiting a while, and it is
//! believed only when it says that it serves the expected directory.

use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::directory::{Directory, RunningServer};
use super::{Binaries, Durability, LocalPostgresError, Options, POLL, SUPERUSER};

/// A server process, ours or adopted.
#[derive(Debug)]
pub(super) struct Server {
    pid: Pid,
    port: u16,
    /// Present when this process started the server, and so must reap it.
    child: Option<Child>,
}

/// What one attempt to connect showed.
enum Answer {
    Ready,
    NotYet,
    WrongPassword,
}

impl Server {
    pub(super) fn adopt(running: RunningServer) -> Self {
        Self { pid: running.pid, port: running.port, child: None }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the server takes connections for the directory.
    pub(super) async fn await_ready(
        &mut self,
        directory: &Directory,
        password: &str,
        deadline: Instant,
    ) -> Result<(), LocalPostgresError> {
        let url = url(self.port, password, "postgres");
        loop {
            if !self.is_alive(directory) {
                return Err(LocalPostgresError::Exited {
                    directory: directory.path().to_owned(),
                    log: directory.log_end(),
                });
            }
            match probe(&url, directory).await {
                Answer::Ready => return Ok(()),
                Answer::WrongPassword => {
                    return Err(LocalPostgresError::Password {
                        directory: directory.path().to_owned(),
                    });
                }
                Answer::NotYet if Instant::now() >= deadline => {
                    return Err(LocalPostgresError::Timeout {
                        directory: directory.path().to_owned(),
                    });
                }
                Answer::NotYet => sleep(POLL).await,
            }
        }
    }

    /// Shuts the server down: clients are cut off politely first, at once when
    /// the deadline passes.
    pub(super) async fn shut_down(
        &mut self,
        directory: &Directory,
        deadline: Instant,
    ) -> Result<(), LocalPostgresError> {
        self.signal(directory, Signal::INT);
        if self.await_end(directory, deadline).await {
            return Ok(());
        }
        self.signal(directory, Signal::QUIT);
        if self.await_end(directory, Instant::now() + Duration::from_secs(5)).await {
            return Ok(());
        }
        Err(LocalPostgresError::Timeout { directory: directory.path().to_owned() })
    }

    /// Ends a server that never became usable. Its failure is already being
    /// reported, so this one is not.
    pub(super) async fn abandon(mut self, directory: &Directory) {
        self.shut_down(directory, Instant::now()).await.ok();
    }

    /// Sends a signal. A process that is gone needs none.
    fn signal(&mut self, directory: &Directory, signal: Signal) {
        if self.is_alive(directory) {
            kill_process(self.pid, signal).ok();
        }
    }

    async fn await_end(&mut self, directory: &Directory, deadline: Instant) -> bool {
        while self.is_alive(directory) {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    fn is_alive(&mut self, directory: &Directory) -> bool {
        match &mut self.child {
            // Asking also reaps it, so that its number does not linger.
            Some(child) => matches!(child.try_wait(), Ok(None)),
            // An orphan that ended can stay in the process table until init
            // looks, but removing the pid file is the last thing it does.
            None => directory.running_server().is_some_and(|running| running.pid == self.pid),
        }
    }
}

/// Starts a server process on the cluster.
pub(super) fn spawn(
    directory: &Directory,
    binaries: &Binaries,
    port: u16,
    options: &Options,
) -> Result<Server, LocalPostgresError> {
    const UNFLUSHED: [&str; 3] = ["fsync=off", "full_page_writes=off", "log_checkpoints=off"];
    const FLUSHED: [&str; 1] = ["log_checkpoints=off"];

    let log = directory.new_log()?;
    let same_log = log.try_clone().map_err(LocalPostgresError::process)?;
    let mut command = directory.command(&binaries.program("postgres"));
    command.arg("-D").arg(directory.data()).stdout(log).stderr(same_log);
    let mut set = |setting: &str| {
        command.arg("-c").arg(setting);
    };
    set(&format!("port={port}"));
    set("listen_addresses=127.0.0.1");
    // No socket file: its path has a length limit that a deep directory exceeds.
    set("unix_socket_directories=");
    let durability: &[&str] = match options.durability {
        Durability::Durable => &FLUSHED,
        Durability::Disposable => &UNFLUSHED,
    };
    for setting in durability {
        set(setting);
    }
    for (name, value) in &options.settings {
        set(&format!("{name}={value}"));
    }
    let child = command
        // Not a child of the async runtime, which may end before the handle does.
        .into_std()
        .spawn()
        .map_err(LocalPostgresError::process)?;
    Ok(Server { pid: Pid::from_child(&child), port, child: Some(child) })
}

/// Makes the URL of a database on loopback.
pub(super) fn url(port: u16, password: &str, database: &str) -> String {
    format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// Connects once and asks the server which directory it serves.
async fn probe(url: &str, directory: &Directory) -> Answer {
    // "invalid_password": no amount of waiting changes it.
    const INVALID_PASSWORD: &str = "28P01";
    const ANSWER_WITHIN: Duration = Duration::from_secs(2);

    let served = timeout(ANSWER_WITHIN, async {
        let mut connection = PgConnection::connect(url).await?;
        let served: String =
            sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(served)
    })
    .await;
    match served {
        Ok(Ok(served)) if directory.data().as_os_str() == served.as_str() => Answer::Ready,
        Ok(Err(sqlx::Error::Database(error)))
            if error.code().as_deref() == Some(INVALID_PASSWORD) =>
        {
            Answer::WrongPassword
        }
        Ok(Ok(_) | Err(_)) | Err(_) => Answer::NotYet,
    }
}
