//! The threads that commands run on.

use std::future::Future;
use std::num::NonZero;

use anyhow::Context as _;
use tokio::runtime::Builder;

use crate::config::Config;
use crate::server::default_workers;

/// Runs a command that serves, on as many threads as its configuration says.
pub(super) fn serve_on(
    config: &Config,
    command: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let workers =
        config.worker_threads.map_or_else(|| default_workers(&config.storage), NonZero::get);
    run_on(Builder::new_multi_thread().worker_threads(workers), command)
}

/// Runs a command that is done in a moment.
pub(super) fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    run_on(&mut Builder::new_multi_thread(), command)
}

fn run_on(
    builder: &mut Builder,
    command: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let runtime = builder.enable_all().build().context("cannot start threads")?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use std::thread::available_parallelism;

    use tokio::runtime::Handle;

    use super::*;
    use crate::config::{Environment, Flags, LoadOptions, Purpose};

    fn workers_with(variables: &[(&str, &str)]) -> usize {
        let environment: Environment =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let config = Config::load(&LoadOptions {
            purpose: Purpose::Serve,
            flags: Flags::default(),
            file: None,
            environment,
            directory: "/".into(),
        })
        .unwrap();
        let mut workers = 0;
        let count = async {
            workers = Handle::current().metrics().num_workers();
            Ok(())
        };
        serve_on(&config, count).unwrap();
        workers
    }

    #[test]
    fn a_server_runs_on_the_threads_it_is_told() {
        assert_eq!(workers_with(&[("TASKCAST_WORKER_THREADS", "3")]), 3);
        let near = ("TASKCAST_POSTGRES_URL", "postgres://u@localhost/x");
        assert_eq!(workers_with(&[("TASKCAST_WORKER_THREADS", "3"), near]), 3);
    }

    #[test]
    fn a_database_on_the_same_machine_is_left_half_of_it() {
        let processors = available_parallelism().unwrap().get();
        assert_eq!(workers_with(&[]), processors);
        let far = ("TASKCAST_POSTGRES_URL", "postgres://u@db.example/x");
        assert_eq!(workers_with(&[far]), processors);
        for near in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            let url = format!("postgres://u@{near}/x");
            let workers = workers_with(&[("TASKCAST_POSTGRES_URL", &url)]);
            assert_eq!(workers, (processors / 2).max(1), "{near}");
        }
    }
}
