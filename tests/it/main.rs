//! The integration tests: the ports against their definition, the real program
//! over real sockets, and the source against its own rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and the line says where")]
#![expect(
    unreachable_pub,
    reason = "nothing of a test program is reachable; pub is what the other tests may use"
)]

mod architecture;
mod bounded;
mod cli;
mod cluster;
mod dev;
mod embedding;
mod faults;
mod http;
mod logging;
mod migrate;
mod pooler;
mod resume;
mod rules;
mod store;
mod support;
