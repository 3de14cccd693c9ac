//! An OCI distribution registry in process, over any content store: for tests, demonstrations and air-gapped use.
//!
//! It serves the [distribution specification] 1.1 over HTTP/1.1: pull, push (whole, in chunks, resumed), mounts, tags,
//! referrers, deletion; and Docker's token endpoint and catalogue. [`FaultScript`] makes it cut, stall, lie and
//! throttle, and [`RunningRegistry::requests`] tells what was asked of it.
//!
//! ```
//! use longshore_registry::Registry;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Registry::builder().serve("127.0.0.1:0").await?;
//! let config = registry.put_blob("{}").await?;
//! let manifest = format!(
//!     r#"{{"schemaVersion":2,"config":{{"mediaType":"text/plain","digest":"{config}","size":2}},"layers":[]}}"#
//! );
//! let media_type = "application/vnd.oci.image.manifest.v1+json";
//! let digest = registry.put_manifest("demo/empty", Some("latest"), media_type, manifest).await?;
//! assert_eq!(registry.resolve("demo/empty", "latest"), Some(digest));
//! println!("pull {}/demo/empty:latest", registry.host());
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not for
//! It is no registry for production: no TLS, no users but those it is told, no quotas, no garbage collection.
//!
//! # Limitations
//! - Which repository holds what, and the tags, are in memory: a restart over the same content store begins without them.
//! - Deleting takes out of a repository; the bytes stay in the content store.
//! - One range of a blob at a time.
//!
//! [distribution specification]: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md

#![forbid(unsafe_code)]

mod answer;
mod auth;
mod blobs;
mod body;
mod error;
mod faults;
mod listen;
mod log;
mod manifest;
mod manifests;
mod name;
mod random;
mod registry;
mod repositories;
mod route;
mod service;
mod state;
mod tags;
mod uploads;

pub use auth::{Anonymous, Auth, Bearer, Users};
pub use error::{Error, ErrorKind, Result};
pub use faults::{Fault, FaultScript, Faults, RuleHandle};
pub use log::LoggedRequest;
pub use registry::{Builder, Registry, RunningRegistry};
