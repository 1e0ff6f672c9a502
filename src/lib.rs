//! Taskcast: task tracking with resumable event streams, on Postgres.
//!
//! A backend creates a [task](domain::Task), moves it through its
//! [states](domain::TaskStatus) and publishes [events](domain::Event); any
//! number of readers follow it over resumable server-sent events, on any
//! instance, exactly once and in order.
//!
//! The program `taskcast` serves this over HTTP. All of it also fits into
//! another program, as a [`server::Service`]:
//!
//! - [`Service::open`](server::Service::open) starts one over Postgres or
//!   memory, [`Service::start`](server::Service::start) over a store of your own.
//! - [`Service::router`](server::Service::router) returns the routes as an axum
//!   router, to be nested under any prefix.
//! - [`Service::engine`](server::Service::engine) creates tasks, moves them and
//!   publishes events; [`Service::dispatcher`](server::Service::dispatcher)
//!   opens streams and histories. Neither needs HTTP.
//!
//! `docs/embedding.md` in the repository walks through it, and
//! `examples/embedded.rs` is a program to start from.
//!
//! ```
//! use std::time::Duration;
//!
//! use futures_util::StreamExt as _;
//! use serde_json::json;
//! use taskcast::dispatcher::{Item, StreamRequest};
//! use taskcast::domain::{EventDraft, Json, NewTask, SeriesMode, TaskStatus, Transition};
//! use taskcast::engine::{WriteContext, fresh_task_id};
//! use taskcast::server::{Service, ServiceOptions};
//! use taskcast::store::StorageOptions;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = StorageOptions::Memory { max_bytes: 64 << 20 };
//! let service = Service::open(ServiceOptions::default(), storage).await?;
//! let engine = service.engine();
//! let context = WriteContext::default;
//!
//! // What a worker does.
//! let id = fresh_task_id();
//! engine.create_task(NewTask::new(id.clone()), None).await?;
//! engine.transition(&id, Transition::to(TaskStatus::Running), context()).await?;
//! for text in ["Hello ", "world"] {
//!     let delta = EventDraft::new("llm.delta", Json::of(&json!({ "text": text }))?)?
//!         .in_series("answer", SeriesMode::Accumulate);
//!     engine.publish(&id, vec![delta], context()).await?;
//! }
//! engine.transition(&id, Transition::to(TaskStatus::Completed), context()).await?;
//!
//! // What a reader gets who comes late: the two pieces as one.
//! let mut stream = service.dispatcher().follow(StreamRequest::new(id)).await?;
//! let mut told = Vec::new();
//! while let Some(item) = stream.next().await {
//!     match item? {
//!         Item::Event(entry) => told.push(entry.event().draft.data.as_str().to_owned()),
//!         Item::Done(status, _) => told.push(status.to_string()),
//!         Item::Reset | Item::Deleted => {}
//!     }
//! }
//! assert_eq!(
//!     told,
//!     [
//!         r#"{"status":"running"}"#,
//!         r#"{"text":"Hello world"}"#,
//!         r#"{"status":"completed"}"#,
//!         "completed",
//!     ]
//! );
//! service.stop(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # The modules
//!
//! In the order to read them:
//!
//! - [`domain`]: the rules, as pure functions. Nothing here waits or writes.
//! - [`store`]: the ports every storage adapter implements, and the adapters.
//! - [`engine`]: the only writer of task state.
//! - [`dispatcher`]: wakes readers and feeds their streams.
//! - [`maintenance`]: deadlines and purging.
//! - [`auth`]: who is calling.
//! - [`webhooks`]: sends what is owed to webhooks.
//! - [`http`]: the REST and stream surface.
//! - [`hooks`], [`metrics`] and [`observer`]: what a service tells about itself.
//! - [`bench`](mod@bench): measures any server that speaks the same over the wire, and
//!   what a database can do by itself.
//! - [`server`]: puts the parts together; [`config`] and [`cli`] drive it.

#[macro_use]
pub mod failpoints;

pub mod auth;
pub mod bench;
pub mod cli;
pub mod config;
pub mod dispatcher;
pub mod domain;
pub mod engine;
pub mod hooks;
pub mod http;
pub mod local_postgres;
pub mod maintenance;
pub mod metrics;
pub mod observer;
#[cfg(feature = "sentry")]
pub mod sentry;
pub mod server;
pub mod store;
pub mod supervisor;
pub mod telemetry;
mod tls;
pub mod webhooks;
