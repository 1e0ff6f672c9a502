//! `taskcast migrate`: brings the schema of a database up to date, or tells
//! what that would take.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{CommonArguments, load, print};
use crate::config::{Environment, Purpose, SecretUrl};
use crate::store::postgres::migrate::{self, Migration};

/// How long one migration waits for another that runs on the same database.
const WAIT_FOR_OTHERS: Duration = Duration::from_mins(1);

/// Options of `taskcast migrate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Print the SQL that would run, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Exit with status 1 if there is something to migrate, and change nothing.
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
}

/// Migrates, or tells what is to be migrated.
pub(super) async fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    let config = load(Purpose::Migrate, arguments.common, None, environment)?;
    let Some(url) = config.storage.direct_url() else {
        bail!("there is no database to migrate; set TASKCAST_POSTGRES_URL or pass --postgres-url");
    };
    if arguments.dry_run {
        return show_pending(url).await;
    }
    if arguments.check {
        return check(url).await;
    }
    for migration in apply(url).await? {
        print(&format!("applied {}", title(&migration)))?;
    }
    print(&format!("{url} is up to date"))?;
    Ok(())
}

/// Applies what is pending and returns it.
pub(super) async fn apply(url: &SecretUrl) -> anyhow::Result<Vec<Migration>> {
    let mut migrator =
        migrate::connect(url.expose()).await.with_context(|| format!("cannot migrate {url}"))?;
    let applied =
        migrator.apply(WAIT_FOR_OTHERS).await.with_context(|| format!("cannot migrate {url}"))?;
    for migration in &applied {
        tracing::info!(migration = migration.version, "applied {}", title(migration));
    }
    Ok(applied)
}

async fn pending(url: &SecretUrl) -> anyhow::Result<Vec<Migration>> {
    let mut migrator = migrate::connect(url.expose())
        .await
        .with_context(|| format!("cannot read the migrations of {url}"))?;
    migrator.pending().await.with_context(|| format!("cannot read the migrations of {url}"))
}

/// Prints what is pending as a script with a comment before each migration.
async fn show_pending(url: &SecretUrl) -> anyhow::Result<()> {
    let pending = pending(url).await?;
    if pending.is_empty() {
        print(&format!("-- {url} is up to date"))?;
    }
    for migration in pending {
        let title = title(&migration);
        print(&format!("-- {title}\n{}\n", migration.sql.trim_end()))?;
    }
    Ok(())
}

async fn check(url: &SecretUrl) -> anyhow::Result<()> {
    let pending = pending(url).await?;
    if !pending.is_empty() {
        let titles: Vec<String> = pending.iter().map(title).collect();
        bail!("{url} is not up to date, run `taskcast migrate`; pending: {}", titles.join(", "));
    }
    print(&format!("{url} is up to date"))?;
    Ok(())
}

fn title(migration: &Migration) -> String {
    format!("{} {}", migration.version, migration.description)
}
