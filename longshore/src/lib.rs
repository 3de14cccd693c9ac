//! A container engine as a library: pull, unpack, run, in one process, every part replaceable.
//!
//! # What it is not for
//! A daemon: it links into the program that needs it (`longshored` is an example that does). Networks of containers: a container has a network namespace with a
//! loopback, or the host's, unless the application makes it more.
//!
//! # Limitations
//! Linux only. One process at a time holds an engine's root. Removing an image forgets its name; its space is freed by [`Engine::collect`], which runs by
//! itself only when told to ([`Engine::collect_in_background`]).
//!
//! # Example
//! ```
//! use longshore::{Engine, Io};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if longshore_testing::require_root().is_err() { return Ok(()); }
//! # let folder = tempfile::tempdir()?;
//! # let root = folder.path();
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let registry = longshore_examples::quickstart::serve_host_image().await?;
//! # let name = format!("{}/demo/host:latest", registry.host());
//! let engine = Engine::open(root).await?;
//! let image = engine.pull(name).await?; // docker.io/library/alpine:3.20, say
//! let container = engine
//!     .container("demo")
//!     .image(&image)
//!     .args(["/bin/sh", "-c", "echo hello; exit 3"])
//!     .spec(|spec| spec.memory(64 << 20).pids_limit(32))
//!     .io(Io::inherit())
//!     .create()
//!     .await?;
//! let status = container.run().await?;
//! assert_eq!(status.code, 3);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! A container that is to go on whatever happens has a [`RestartPolicy`], and one [that asks how it is](Container::watch_health) a [`HealthCheck`]:
//!
//! ```no_run
//! use longshore::{Engine, Io, Lifetime, RestartPolicy};
//!
//! # async fn demo(engine: Engine, image: longshore::Image) -> Result<(), longshore::Error> {
//! let web = engine.container("web").image(&image).lifetime(Lifetime::Detached);
//! let web = web.restart_policy(RestartPolicy::UnlessStopped).create().await?;
//! web.start().await?;
//! let supervision = web.supervise(|| Io::json_lines("/var/log/web.json"));
//! if let Some(check) = engine.health_check(&image).await? {
//!     let mut health = web.watch_health(check);
//!     println!("{} is {:?}", web.id(), health.changed().await);
//! }
//! // Another part of the program calls `web.stop(...)`, or the next one calls `engine.supervise_all(...)`.
//! let status = supervision.ended().await?;
//! # Ok(())
//! # }
//! ```
//!
//! One that needs others is started after them, and stopped before:
//!
//! ```no_run
//! use longshore::{Condition, Engine, Io};
//!
//! # async fn demo(engine: Engine, image: longshore::Image) -> Result<(), longshore::Error> {
//! let web = engine.container("web").image(&image).depends_on("db", Condition::Healthy);
//! web.depends_on("migrate", Condition::Completed).create().await?;
//! engine.start_in_order(&["web"], |_| Io::null()).await?; // db and migrate first
//! # Ok(())
//! # }
//! ```
//!
//! Another part is one line, because an [`Engine`] is a plain struct of ports:
//!
//! ```no_run
//! use std::sync::Arc;
//! use longshore::{Engine, content::MemoryStore};
//!
//! # async fn demo(root: &str) -> Result<(), longshore::Error> {
//! let engine = Engine { content: Arc::new(MemoryStore::new()), ..Engine::open(root).await? };
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod asked;
mod change;
mod collect;
mod commit;
mod container;
mod convert;
mod create;
mod engine;
mod error;
mod exec;
mod exit;
mod held;
mod image;
mod load;
mod logs;
mod making;
mod namespace;
mod notes;
mod observe;
mod open;
mod pieces;
mod platforms;
mod privilege;
mod rebuild;
mod recover;
mod remote;
mod send;
mod senses;
mod supervise;
mod verify;

pub use asked::this_program;
pub use collect::{Collecting, Collection, DiskUsage, Schedule, Share};
pub use commit::{CommitBuilder, Instruction};
pub use container::Container;
pub use convert::ConvertBuilder;
pub use create::ContainerBuilder;
pub use engine::{DEFAULT_NAMESPACE, Engine};
pub use error::{Error, ErrorKind, Result};
pub use exec::ExecBuilder;
pub use image::{Image, PullBuilder};
pub use load::LoadBuilder;
pub use logs::LogOptions;
pub use longshore_events::{Event, EventKind, EventSink, Filter};
pub use longshore_runtime::{
    Attachment, DeleteMode, ExitStatus, Io, Lifetime, LogFile, LogFormat, LogRecord, OutputStream, Shown, State, Status,
};
pub use open::EngineBuilder;
pub use privilege::Privilege;
pub use rebuild::Rebuilt;
pub use send::{Extent, PushBuilder, PushedImage};
pub use senses::Senses;
pub use supervise::{Condition, Health, HealthCheck, HealthWatch, RestartPolicy, Stopped, Supervision};

pub use longshore_bundle as bundle;
pub use longshore_content as content;
pub use longshore_distribution as distribution;
pub use longshore_events as events;
pub use longshore_metadata as metadata;
pub use longshore_metrics as metrics;
pub use longshore_runtime as runtime;
pub use longshore_snapshot as snapshot;
pub use oci_spec;

/// The examples of the README, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
