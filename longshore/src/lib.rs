//! A container engine as a library: pull, unpack, run, in one process, every part replaceable.
//!
//! ```no_run
//! # async fn demo() -> Result<(), longshore::Error> {
//! use longshore::{Engine, Io};
//!
//! let engine = Engine::open("/var/lib/longshore").await?;
//! let image = engine.pull("docker.io/library/alpine:3.20").await?;
//! let container = engine.container("demo").image(&image).args(["echo", "hello"]).io(Io::inherit()).create().await?;
//! let status = container.run().await?;
//! assert!(status.success());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod container;
mod create;
mod engine;
mod error;
mod exec;
mod image;
mod observe;
mod privilege;
mod recover;
mod senses;

pub use container::Container;
pub use create::ContainerBuilder;
pub use engine::{DEFAULT_NAMESPACE, Engine};
pub use error::{Error, ErrorKind, Result};
pub use exec::ExecBuilder;
pub use image::{Image, PullBuilder};
pub use longshore_events::{Event, EventKind, EventSink, Filter};
pub use longshore_runtime::{DeleteMode, ExitStatus, Io, Lifetime, State, Status};
pub use privilege::Privilege;
pub use senses::Senses;

pub use longshore_bundle as bundle;
pub use longshore_content as content;
pub use longshore_distribution as distribution;
pub use longshore_events as events;
pub use longshore_metadata as metadata;
pub use longshore_metrics as metrics;
pub use longshore_runtime as runtime;
pub use longshore_snapshot as snapshot;
pub use oci_spec;
