//! What the measurements run on: a database, and an instance over a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};
use taskcast::dispatcher::{Dispatcher, DispatcherOptions};
use taskcast::local_postgres::{
    Durability, LocalPostgres, Options, find_binaries, install_command,
};
use taskcast::store::postgres::{PostgresOptions, migrate};
use taskcast::store::{self, Opened, StorageOptions, Store};
use taskcast::supervisor::Supervisor;

/// How long migrating may wait for another migration.
const MIGRATE_WAIT: Duration = Duration::from_secs(10);

/// A migrated database, and the private server it is on.
pub(crate) struct Database {
    url: String,
    private: Option<(LocalPostgres, PathBuf)>,
}

impl Database {
    /// Takes the database at `url`, or makes one on a private server.
    pub(crate) async fn prepare(url: Option<&str>, durability: Durability) -> anyhow::Result<Self> {
        let database = match url {
            Some(url) => Self { url: url.to_owned(), private: None },
            None => Self::start(durability).await?,
        };
        match database.migrate().await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.remove().await?;
                Err(error)
            }
        }
    }

    async fn start(durability: Durability) -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a bench has no configuration to read it in")]
        let search_path = std::env::var_os("PATH");
        let binaries = find_binaries(search_path.as_deref());
        let directory = std::env::temp_dir().join(format!("taskcast-bench-{}", std::process::id()));
        let options = Options { durability, ..Options::persistent(&directory, binaries) }
            .setting("shared_buffers", "512MB")
            .setting("max_wal_size", "4GB");
        let server = LocalPostgres::start(options).await.with_context(|| {
            let install = install_command(search_path.as_deref()).unwrap_or_default();
            format!("no private Postgres; set TASKCAST_BENCH_POSTGRES_URL or run: {install}")
        })?;
        let url = server.url("bench");
        let created = server.ensure_database("bench").await;
        let database = Self { url, private: Some((server, directory)) };
        match created {
            Ok(()) => Ok(database),
            Err(error) => {
                database.remove().await?;
                Err(error.into())
            }
        }
    }

    async fn migrate(&self) -> anyhow::Result<()> {
        migrate::connect(&self.url).await?.apply(MIGRATE_WAIT).await?;
        Ok(())
    }

    /// Stops and removes a private server.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        if let Some((server, directory)) = self.private {
            server.stop().await?;
            std::fs::remove_dir_all(directory)?;
        }
        Ok(())
    }

    /// Says how to open a store on the database.
    pub(crate) fn storage(&self) -> StorageOptions {
        StorageOptions::Postgres(PostgresOptions::new(&self.url))
    }

    /// Returns the URL of the database.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Connects to the database past any store.
    pub(crate) async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }
}

/// A store with a dispatcher, as in a server.
pub(crate) struct Instance {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    supervisor: Supervisor,
    opened: Opened,
}

impl Instance {
    /// Opens a store and puts a dispatcher over it.
    pub(crate) async fn open(storage: StorageOptions) -> anyhow::Result<Self> {
        let supervisor = Supervisor::new();
        let dispatcher = Dispatcher::new(DispatcherOptions::default());
        let opened = store::open(storage, dispatcher.clone(), &supervisor).await?;
        dispatcher.attach(opened.store.clone(), opened.bus.clone());
        Ok(Self { store: opened.store.clone(), dispatcher, supervisor, opened })
    }

    /// Finishes what was accepted and lets go of every connection.
    pub(crate) async fn close(self) {
        (self.opened.closer)().await;
        self.supervisor.stop().await;
    }
}
