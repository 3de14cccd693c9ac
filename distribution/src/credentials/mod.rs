//! Where credentials come from.

mod docker;
mod helper;

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;

pub use docker::DockerConfig;

use crate::{Credential, Credentials, Result};

/// No credentials: public images only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn credential(&self, _host: &str, _repository: &str) -> Result<Credential> {
        Ok(Credential::Anonymous)
    }
}

/// Credentials that the program knows, by host as in a reference (with the port if it has one). Other hosts are
/// spoken to anonymously.
///
/// ```
/// use longshore_distribution::{Credential, Static};
///
/// let credentials = Static::new().with("registry.example:5000", Credential::basic("me", "secret"));
/// assert!(!format!("{credentials:?}").contains("secret"));
/// ```
#[derive(Clone, Default)]
pub struct Static {
    hosts: HashMap<String, Credential>,
}

impl Static {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the credential for one host.
    pub fn with(mut self, host: impl Into<String>, credential: Credential) -> Self {
        self.hosts.insert(host.into(), credential);
        self
    }
}

impl fmt::Debug for Static {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Static").field("hosts", &self.hosts).finish()
    }
}

#[async_trait]
impl Credentials for Static {
    async fn credential(&self, host: &str, _repository: &str) -> Result<Credential> {
        Ok(self.hosts.get(host).cloned().unwrap_or(Credential::Anonymous))
    }
}
