//! A database to measure in, beside the user's own.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use url::Url;

use super::MeasureError;
use crate::store::postgres::{ConnectError, PostgresOptions, migrate};

/// How long migrating may wait for another migration, of which there is none.
const MIGRATE_WAIT: Duration = Duration::from_secs(10);

/// How much of another database's name is kept; names may have 63 bytes.
const KEPT_OF_NAME: usize = 32;

/// A database that exists for one run.
pub(super) struct Scratch {
    /// Connected to the database that was named.
    admin: PgConnection,
    name: String,
    url: String,
    options: PgConnectOptions,
}

impl Scratch {
    /// Makes one on the server of `url`.
    pub(super) async fn create(url: &str) -> Result<Self, MeasureError> {
        let options = parse(url)?;
        let name = name_beside(options.get_database().unwrap_or_default());
        let url = with_database(url, &name).ok_or(ConnectError::InvalidUrl)?;
        let mut admin = options.connect().await.map_err(MeasureError::Connect)?;
        let statement = format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0");
        admin.execute(AssertSqlSafe(statement)).await.map_err(MeasureError::Create)?;
        let options = options.database(&name);
        Ok(Self { admin, name, url, options })
    }

    /// Gives it the schema of the service.
    pub(super) async fn migrate(&self) -> Result<(), MeasureError> {
        migrate::connect(&self.url).await?.apply(MIGRATE_WAIT).await?;
        Ok(())
    }

    /// Returns how to connect to it with the settings of the server.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Connects to it with the settings of the server.
    pub(super) async fn connect(&self) -> Result<PgConnection, MeasureError> {
        self.options.connect().await.map_err(MeasureError::Connect)
    }

    /// Connects to it with the settings of a writer lane.
    pub(super) async fn connect_lane(&self) -> Result<PgConnection, MeasureError> {
        let options = PostgresOptions::new(&self.url).connect_lane()?;
        options.disable_statement_logging().connect().await.map_err(MeasureError::Connect)
    }

    /// Drops it, whoever still uses it.
    pub(super) async fn drop(mut self) -> Result<(), MeasureError> {
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let dropped = self.admin.execute(AssertSqlSafe(statement)).await;
        dropped.map_err(|error| MeasureError::Drop { name: self.name, error })?;
        self.admin.close().await?;
        Ok(())
    }
}

fn parse(url: &str) -> Result<PgConnectOptions, ConnectError> {
    // The driver's message may quote the URL, password included.
    let options = PgConnectOptions::from_str(url).map_err(|_| ConnectError::InvalidUrl)?;
    Ok(options.application_name("taskcast-bench").disable_statement_logging())
}

/// Returns a name that needs no quotes and tells, should a run be killed before
/// it drops its database, beside which one it was made.
fn name_beside(database: &str) -> String {
    let plain = database.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_');
    let beside: String = plain.take(KEPT_OF_NAME).collect();
    format!("taskcast_bench_{}_{:08x}", beside.to_ascii_lowercase(), rand::random::<u32>())
}

/// Returns `url` with another database in it.
fn with_database(url: &str, database: &str) -> Option<String> {
    let mut url = Url::parse(url).ok()?;
    // A parameter would win over the path.
    let others: Vec<(String, String)> =
        url.query_pairs().filter(|(name, _)| name != "dbname").map(owned).collect();
    url.set_path(database);
    url.set_query(None);
    if !others.is_empty() {
        url.query_pairs_mut().extend_pairs(others);
    }
    Some(url.into())
}

fn owned(pair: (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)) -> (String, String) {
    (pair.0.into_owned(), pair.1.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_tells_what_it_stands_beside() {
        let name = name_beside("My App\"; DROP_");
        assert!(name.starts_with("taskcast_bench_myappdrop__"), "{name}");
        assert!(name_beside(&"x".repeat(100)).len() <= 63);
    }

    #[test]
    fn another_database_takes_the_place_of_the_named_one_wherever_it_stands() {
        for (url, expected) in [
            ("postgres://u:p@h:1/a", "postgres://u:p@h:1/x"),
            ("postgres://u:p@h/a?sslmode=disable", "postgres://u:p@h/x?sslmode=disable"),
            ("postgres://u@h", "postgres://u@h/x"),
            (
                "postgres://u@localhost/a?host=/run/pg&dbname=b",
                "postgres://u@localhost/x?host=%2Frun%2Fpg",
            ),
            ("postgresql:///a?dbname=b", "postgresql:///x"),
        ] {
            let url = with_database(url, "x").unwrap();
            assert_eq!(url, expected);
            assert_eq!(parse(&url).unwrap().get_database(), Some("x"), "{url}");
        }
    }
}
