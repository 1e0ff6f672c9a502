//! Streams: the rules of `docs/sse.md`.

mod cursors;
mod ending;
mod filters;
mod global;
mod live;
mod response;
mod series;
mod slow;
