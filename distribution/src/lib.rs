//! The client side of the OCI distribution specification: resolve a reference, fetch and push blobs, pull an image
//! into a [`ContentStore`](longshore_content::ContentStore).

#![forbid(unsafe_code)]

mod auth;
mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
mod credentials;
mod digest;
mod error;
mod layout;
mod manifest;
pub mod media;
mod platform;
mod ports;
mod pull;
mod push;

pub use client::{PlainHttp, RegistryClient, RegistryClientBuilder, RetryPolicy};
pub use credentials::{Anonymous, DockerConfig, Static};
pub use error::{Error, ErrorKind, Result};
pub use layout::{OciLayout, export_layout};
pub use manifest::{MAX_CONFIG_SIZE, MAX_INDEX_ENTRIES, MAX_LAYERS, MAX_MANIFEST_SIZE};
pub use oci_spec::distribution::Reference;
pub use platform::{format_platform, host_platform, parse_platform};
pub use ports::{
    Allow, Credential, Credentials, Fetched, Fetcher, ImageVerifier, Pusher, Resolved, Resolver, Root, VerifyRequest,
};
pub use pull::{Keeper, ProgressEvent, Pull, PullOptions, PullProgress, PullSource, ResolvedImage};
pub use push::push_image;
