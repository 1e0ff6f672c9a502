//! `taskcast serve`: opens the socket, installs the signals, runs the server.

use clap::Args;

use super::{CommonArguments, ListenArguments, listen, load, migrate, runtime};
use crate::config::{Config, Environment, Purpose};
use crate::server;

/// Options of `taskcast serve`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) listen: ListenArguments,
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// Migrate the database before serving.
    #[arg(long)]
    migrate: bool,
}

/// Serves until told to stop.
pub(super) fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    let config = load(Purpose::Serve, arguments.common, Some(arguments.listen), environment)?;
    runtime::serve_on(&config.clone(), serve(config, arguments.migrate))
}

async fn serve(config: Config, migrate: bool) -> anyhow::Result<()> {
    if migrate {
        // Memory has nothing to migrate, and the flag is often part of an image
        // that is run either way.
        if let Some(url) = config.storage.direct_url() {
            migrate::apply(url).await?;
        }
    }
    let stop = listen::stop_on_signal()?;
    let listener = listen::bind(&config).await?;
    let database = config.sources.storage.to_string();
    listen::announce(&config, listener.local_addr()?, &database);
    server::run(config, listener, stop).await
}
