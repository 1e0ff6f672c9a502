//! Bringing a database up to date.
//!
//! Everything lives in schema `taskcast`, the table of applied migrations
//! too, so that the service can share a database with anything else, other
//! users of the same migration library included.
//!
//! Several at once wait for each other: the lock is asked for again and again
//! instead of waited for, because a waiting session would block index builds.
//! The lock belongs to the session, so a pooler must not stand in between.

use std::time::{Duration, Instant};

use sqlx::migrate::{Migrate as _, Migrator as Migrations};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::settings::Settings;

/// The migrations this version knows.
static MIGRATIONS: Migrations = sqlx::migrate!("./migrations");

/// Where applied migrations are noted.
const TABLE: &str = "taskcast.migration";

/// The schema everything lives in.
const SCHEMA: &str = "taskcast";

/// Key of the advisory lock: "taskcast" in ASCII.
const LOCK_KEY: i64 = 0x7461_736b_6361_7374;

/// Pause between two attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// A migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number: the time it was written.
    pub version: i64,
    /// What it does, in a few words.
    pub description: String,
    /// Its statements.
    pub sql: String,
}

/// A database was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database cannot be reached.
    #[error("cannot connect to the database: {0}")]
    Connect(sqlx::Error),
    /// Another migration holds the lock.
    #[error("another migration has been running for {0:?}; try again when it is done")]
    Locked(Duration),
    /// The database was migrated by a version that this one does not know.
    #[error("the database has migration {0}, which this version does not know; use the newer one")]
    FromTheFuture(i64),
    /// A statement failed.
    #[error("migration failed: {0}")]
    Failed(String),
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Migrates one database.
#[derive(Debug)]
pub struct Migrator {
    connection: PgConnection,
}

/// Connects to the database at `url`, which must lead to Postgres itself.
pub async fn connect(url: &str) -> Result<Migrator, MigrateError> {
    let connection = PgConnection::connect(url).await.map_err(MigrateError::Connect)?;
    Ok(Migrator { connection })
}

impl Migrator {
    /// Returns the migrations that were not applied yet, oldest first.
    ///
    /// Changes nothing.
    pub async fn pending(&mut self) -> Result<Vec<Migration>, MigrateError> {
        // In a transaction: a server looks by way of a pooler where it has to,
        // and the session behind it is shared.
        self.connection.execute(AssertSqlSafe(Settings::Migration.begin())).await?;
        let pending = self.find_pending().await;
        let ended = self.connection.execute("ROLLBACK").await;
        let pending = pending?;
        ended?;
        Ok(pending)
    }

    async fn find_pending(&mut self) -> Result<Vec<Migration>, MigrateError> {
        let applied = self.applied().await?;
        if let Some(unknown) = applied.iter().find(|version| !MIGRATIONS.version_exists(**version))
        {
            return Err(MigrateError::FromTheFuture(*unknown));
        }
        Ok(MIGRATIONS
            .iter()
            .filter(|migration| !applied.contains(&migration.version))
            .map(|migration| Migration {
                version: migration.version,
                description: migration.description.to_string(),
                sql: migration.sql.as_str().to_owned(),
            })
            .collect())
    }

    async fn applied(&mut self) -> Result<Vec<i64>, MigrateError> {
        let is_tracked = sqlx::query_file_scalar!("sql/migrate/is_tracked.sql")
            .fetch_one(&mut self.connection)
            .await?;
        if !is_tracked {
            return Ok(Vec::new());
        }
        let applied = self.connection.list_applied_migrations(TABLE).await.map_err(failed)?;
        Ok(applied.into_iter().map(|migration| migration.version).collect())
    }

    /// Applies what is pending and returns it.
    ///
    /// Waits up to `wait` for another migration to finish.
    pub async fn apply(&mut self, wait: Duration) -> Result<Vec<Migration>, MigrateError> {
        // A role may have a statement_timeout that is too short for a migration.
        self.connection.execute(AssertSqlSafe(Settings::Migration.set())).await?;
        self.lock(wait).await?;
        let outcome = self.apply_locked().await;
        // The session's end would free it as well.
        sqlx::query_file_scalar!("sql/migrate/unlock.sql", LOCK_KEY)
            .fetch_one(&mut self.connection)
            .await?;
        outcome
    }

    async fn apply_locked(&mut self) -> Result<Vec<Migration>, MigrateError> {
        let pending = self.pending().await?;
        if pending.is_empty() {
            return Ok(pending);
        }
        let mut migrations = Migrations::with_migrations(MIGRATIONS.iter().cloned().collect());
        migrations.dangerous_set_table_name(TABLE);
        // Asking for a schema that exists takes a right on the whole database,
        // which an owner of the schema alone need not have.
        let has_schema = sqlx::query_file_scalar!("sql/migrate/has_schema.sql")
            .fetch_one(&mut self.connection)
            .await?;
        if !has_schema {
            migrations.create_schema(SCHEMA);
        }
        migrations.set_locking(false);
        migrations.run(&mut self.connection).await.map_err(failed)?;
        Ok(pending)
    }

    async fn lock(&mut self, wait: Duration) -> Result<(), MigrateError> {
        let start = Instant::now();
        loop {
            let locked = sqlx::query_file_scalar!("sql/migrate/try_lock.sql", LOCK_KEY)
                .fetch_one(&mut self.connection)
                .await?;
            if locked {
                return Ok(());
            }
            if start.elapsed() >= wait {
                return Err(MigrateError::Locked(wait));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn failed(error: sqlx::migrate::MigrateError) -> MigrateError {
    MigrateError::Failed(error.to_string())
}
