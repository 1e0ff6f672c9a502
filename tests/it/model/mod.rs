//! Every adapter against one model of a store.
//!
//! Random commands go to a store and to the model, a description of a store in
//! plain lists (`reference`). Every reply is compared, and in the end all that
//! is stored. A failure is cut down to the fewest commands that still show it,
//! and its seed is kept beside this file, to be tried first from then on.
//!
//! `PROPTEST_CASES` says how many runs to make.

mod case;
mod command;
mod draft;
mod look;
mod reference;
mod rules;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use proptest::test_runner::{Config, FileFailurePersistence, TestError, TestRunner};
use proptest_state_machine::ReferenceStateMachine as _;

use self::case::{Case, Verdict};
use self::command::{Commands, Step};
use self::reference::Model;
use crate::store::open::Fresh;
use crate::support::{Backend, environment_variable};

/// Most commands of a run.
const LONGEST: usize = 40;

/// Longest search for a shorter failure, in milliseconds.
const SHRINKING_MS: u32 = 90_000;

#[test]
fn the_store_in_memory_does_what_the_model_does() {
    compare(600, async || vec![Fresh::open(&Backend::Memory).await]);
}

#[test]
fn the_store_in_postgres_does_what_the_model_does() {
    compare(40, async || vec![Fresh::open(&Backend::postgres().await).await]);
}

#[test]
fn two_instances_on_postgres_do_together_what_the_model_does() {
    compare(40, async || {
        let (first, second) = Fresh::open_two(&Backend::postgres().await).await;
        vec![first, second]
    });
}

/// Compares the stores that `open` opens with the model, in so many runs.
fn compare(runs: u32, open: impl AsyncFnOnce() -> Vec<Fresh>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stores = runtime.block_on(open());
    let wanted = environment_variable("PROPTEST_CASES");
    let config = Config {
        cases: wanted.map_or(runs, |wanted| wanted.parse().expect("a number of runs")),
        max_shrink_time: SHRINKING_MS,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..Config::default()
    };
    let made = AtomicU32::new(0);
    let outcome = TestRunner::new(config).run(
        &Commands::sequential_strategy(1..LONGEST),
        |(model, steps, seen)| {
            let prefix = format!("r{}", made.fetch_add(1, Ordering::Relaxed));
            runtime.block_on(run(&stores, prefix, model, &steps, seen.as_deref()))
        },
    );
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (_, steps, _))) => {
            let steps: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
            panic!("{reason}\nafter\n{}", steps.join("\n"))
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

async fn run(
    stores: &[Fresh],
    prefix: String,
    mut model: Model,
    steps: &[Step],
    seen: Option<&AtomicUsize>,
) -> Verdict {
    let mut case = Case::begin(stores, prefix).await;
    for step in steps {
        // Shrinking wants to know how far a run came.
        if let Some(seen) = seen {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        let after = model.clone().after(step);
        case.step(step, &model, &after).await?;
        model = after;
    }
    case.look_at_everything(&model).await
}
