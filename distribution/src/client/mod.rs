//! The client of one or many registries over HTTP.

mod builder;
pub(crate) mod host;
pub(crate) mod http;
mod push;
mod read;
mod retry;
mod session;

pub use builder::{RegistryClient, RegistryClientBuilder};
pub use host::PlainHttp;
pub use retry::RetryPolicy;
