//! Reading: the ports of tasks and events, apart from their writes.

mod events;
mod journal;
mod list;
mod tasks;

pub(super) use tasks::like_pattern;
