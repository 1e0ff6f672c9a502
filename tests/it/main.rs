//! The integration tests: the ports against their definition, the real program
//! over real sockets, and the source against its own rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and the line says where")]
#![expect(
    unreachable_pub,
    reason = "nothing of a test program is reachable; pub is what the other tests may use"
)]

mod architecture;
mod auth;
mod bench;
mod bench_postgres;
mod bounded;
mod cleanup;
mod cli;
mod cluster;
mod config;
#[cfg(feature = "failpoints")]
mod controls;
mod db_sessions;
mod dev;
mod documents;
mod embedding;
mod faults;
mod grants;
mod hooks;
mod http;
mod lanes;
mod logging;
mod metrics;
mod migrate;
mod model;
mod nginx;
mod pooler;
mod repeats;
mod resume;
mod rules;
#[cfg(feature = "sentry")]
mod sentry;
mod store;
mod support;
mod webhooks;
mod write_order;
