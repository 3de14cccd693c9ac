//! The client of one or many registries over HTTP.

pub(crate) mod answer;
mod builder;
mod endpoint;
mod foreign;
pub(crate) mod host;
pub(crate) mod http;
mod parts;
mod push;
mod read;
mod referrers;
mod retry;
mod session;
mod table;
mod tls;
mod upload;

pub use builder::{RegistryClient, RegistryClientBuilder};
pub use host::PlainHttp;
pub use parts::Parts;
pub use retry::RetryPolicy;
pub use upload::Uploads;
