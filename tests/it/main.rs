//! The integration tests: the ports against their definition, the real program
//! over real sockets, and the source against its own rules.

mod architecture;
mod cli;
mod cluster;
mod dev;
mod faults;
mod http;
mod migrate;
mod resume;
mod rules;
mod store;
mod support;
