//! The client of one or many registries over HTTP.

mod builder;
mod endpoint;
pub(crate) mod host;
pub(crate) mod http;
mod push;
mod read;
mod retry;
mod session;
mod table;
mod tls;

pub use builder::{RegistryClient, RegistryClientBuilder};
pub use host::PlainHttp;
pub use retry::RetryPolicy;
