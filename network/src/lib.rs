//! Network namespaces, and the links, addresses and routes in them.
//!
//! A [`Namespace`] is held by a descriptor: when the last one is closed and no process is left in it, the kernel takes it away, and nothing has to be
//! unmounted. [`Namespace::path`] is what a runtime spec's `network` namespace takes.
//!
//! # What it is not for
//! Deciding what a container's network looks like: that is the application's, or a CNI plugin's. Port maps, address management and calling CNI plugins are
//! not here yet.
//!
//! # Limitations
//! [`Namespace::links`] needs a tokio runtime with its IO driver enabled.
//!
//! # Example
//! ```
//! use longshore_network::Namespace;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if longshore_testing::require_root().is_err() { return Ok(()); }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let namespace = Namespace::create()?;
//! let links = namespace.links()?;
//! links.up("lo").await?;
//! assert_eq!(links.list().await?.len(), 1);
//! # Ok(())
//! # })
//! # }
//! ```

#![forbid(unsafe_code)]

mod error;
mod links;
mod namespace;

pub use error::{Error, ErrorKind, Result};
pub use links::{Link, Links};
pub use namespace::Namespace;
