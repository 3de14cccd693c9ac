//! The client side of the OCI distribution specification: resolve a reference, fetch and push blobs, pull an image
//! into a [`ContentStore`](longshore_content::ContentStore).
//!
//! [`RegistryClient`] speaks to registries: tokens, redirects, retries, mirrors ([`Hosts`]). [`OciLayout`] reads an image layout on disk through the same ports. A [`Pull`] brings an image into a content store,
//! resuming what was cut; [`pull_everything`] brings all platforms, or an artifact that is no image; [`push_image`] and [`export_layout`] bring it out again.
//! [`load_archive`] and [`save_archive`] read and write what `docker save` does.
//! With the feature `oci-client`, `OciClientAdapter` puts the crate of that name behind the ports, for who has a client of it already.
//!
//! # What it is not for
//! Unpacking: follow the layers' ingests with `longshore-bundle`.
//!
//! # Limitations
//! An archive that is compressed as a whole must be decompressed first, and layers are not converted from one compression to another: the facade `longshore` does both.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use longshore_content::{ContentStore, MemoryStore};
//! use longshore_distribution::{Pull, PullOptions, RegistryClient, parse_reference};
//! # use longshore_distribution::conformance::Sample;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sample = Sample::new();
//! # let registry = longshore_registry::Registry::builder().content(Arc::new(sample.store().await)).serve("127.0.0.1:0").await?;
//! # let (manifest, bytes) = &sample.manifest;
//! # registry.put_manifest("app", Some("1"), manifest.media_type().as_ref(), bytes.clone()).await?;
//! # let name = format!("{}/app:1", registry.host());
//! let client = Arc::new(RegistryClient::builder().build()?);
//! let content = Arc::new(MemoryStore::new());
//! // Loopback is spoken to in plain HTTP, all else with TLS. `docker.io/library/alpine:3.20` is a name, too.
//! let pull = Pull::start(client.into(), content.clone(), &parse_reference(&name)?, PullOptions::default()).await?;
//! let image = pull.finish().await?;
//! for layer in image.layers() {
//!     assert_eq!(content.info(layer.digest()).await?.size, layer.size());
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "oci-client")]
mod adapter;
mod archive;
mod auth;
mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
mod credentials;
mod digest;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hosts;
mod layout;
mod manifest;
pub mod media;
mod platform;
mod ports;
mod pull;
mod push;
mod reference;
mod verify;

#[cfg(feature = "oci-client")]
pub use adapter::OciClientAdapter;
pub use archive::{LoadedImage, SavedImage, load_archive, save_archive};
pub use client::{Parts, PlainHttp, RegistryClient, RegistryClientBuilder, RetryPolicy, Uploads};
pub use credentials::{Anonymous, DockerConfig, Static};
pub use error::{Error, ErrorKind, Result};
pub use hosts::{Capability, Host, Hosts, Verification};
pub use layout::{OciLayout, export_layout};
pub use manifest::{MAX_CONFIG_SIZE, MAX_INDEX_ENTRIES, MAX_LAYERS, MAX_MANIFEST_SIZE};
#[cfg(feature = "oci-client")]
pub use oci_client;
pub use oci_spec::distribution::Reference;
pub use platform::{format_platform, host_platform, parse_platform};
pub use ports::{
    Allow, Credential, Credentials, Elsewhere, Fetched, Fetcher, ImageVerifier, Mounted, Pushed, Pusher, Resolved,
    Resolver, Root, VerifyRequest,
};
pub use pull::pull_everything;
pub use pull::{Keeper, ProgressEvent, Pull, PullOptions, PullPlan, PullProgress, PullSource, ResolvedImage};
pub use push::{PushEvent, PushOptions, PushProgress, push_image, push_image_with};
pub use reference::parse_reference;
pub use verify::{AllowList, DigestPins, VerifierPrograms};
