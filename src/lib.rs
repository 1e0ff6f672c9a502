//! Taskcast: task tracking with resumable event streams, on Postgres.
//!
//! A backend creates a [task](domain::Task), moves it through its
//! [states](domain::TaskStatus) and publishes [events](domain::Event); any
//! number of readers follow it over resumable server-sent events, on any
//! instance, exactly once and in order.
//!
//! Read the modules in this order:
//!
//! - [`domain`]: the rules, as pure functions. Nothing here waits or writes.
//! - [`store`]: the ports every storage adapter implements, and the adapters.
//! - [`engine`]: the only writer of task state.
//! - [`dispatcher`]: wakes readers and feeds their streams.
//! - [`maintenance`]: deadlines and purging.
//! - [`http`]: the REST and stream surface.
//! - [`server`]: puts the parts together; [`config`] and [`cli`] drive it.

pub mod cli;
pub mod config;
pub mod dispatcher;
pub mod domain;
pub mod engine;
pub mod http;
pub mod local_postgres;
pub mod maintenance;
pub mod server;
pub mod store;
pub mod supervisor;
pub mod telemetry;
