//! The client side of the OCI distribution specification: resolve a reference, fetch and push blobs, pull an image
//! into a [`ContentStore`](longshore_content::ContentStore).

#![forbid(unsafe_code)]

mod error;
mod ports;

pub use error::{Error, ErrorKind, Result};
pub use oci_spec::distribution::Reference;
pub use ports::{
    Allow, Credential, Credentials, Fetched, Fetcher, ImageVerifier, Pusher, Resolved, Resolver, Root, VerifyRequest,
};
