//! Writing: requests queue up at a lane, which plans a batch, writes it in one
//! statement and answers.
//!
//! [`request`] → [`queue`] → [`lane`] → [`plan`] (decided by the
//! [`head_cache`], or after a [`load`]) → [`append`], or [`reserve`] where
//! optimistic concurrency does not get through → answers and [`post_commit`].
//! [`connection`] retries. Creations ([`create`]) and deletions ([`delete`])
//! go the same way.

mod append;
mod connection;
mod create;
mod deferred;
mod delete;
mod head_cache;
mod idempotency;
mod lane;
mod linger;
mod load;
mod plan;
mod post_commit;
mod queue;
mod receipt;
mod registration;
mod request;
mod reserve;

pub(super) use lane::Lane;
pub(super) use post_commit::PostCommit;
pub(super) use queue::LaneQueue;
pub(super) use registration::keep_lanes;
pub(super) use request::{AppendRequest, CreateRequest, DeleteRequest, Request};
