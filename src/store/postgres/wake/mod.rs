//! Wake-ups between instances: a hint that a task moved, over NOTIFY.

mod buffer;
mod bus;

pub(super) use bus::PostgresBus;
