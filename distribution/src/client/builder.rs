use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::host::PlainHttp;
use super::http::Connections;
use super::parts::Parts;
use super::retry::RetryPolicy;
use super::table::{Manner, Table};
use super::tls;
use super::upload::Uploads;
use crate::auth::Authenticator;
use crate::hosts::Hosts;
use crate::{Anonymous, Credentials, Result};

/// A client for any number of registries: [`Resolver`](crate::Resolver), [`Fetcher`](crate::Fetcher) and
/// [`Pusher`](crate::Pusher) by the OCI distribution specification 1.1.
///
/// It keeps connections and tokens: make one and share it. Nothing is sent before the first request; no task runs in
/// the background. Needs a tokio runtime with time and I/O enabled.
///
/// - Anonymous, Basic and Bearer authentication, each demanded by the registry's own challenge; tokens are renewed when
///   they run out. A credential goes to the registry it is for and to the token server that this registry names by https,
///   never along a redirect to another host.
/// - Large blobs come in several [`Parts`] at once where the registry serves ranges. A layer that must not be distributed, and that the registry does not have, comes from
///   its `urls`, without credentials.
/// - Requests that got no answer, or 408, 429 and 5xx, are repeated ([`RetryPolicy`]). A body that is cut is the
///   caller's to resume ([`Pull`](crate::Pull) does).
/// - A server that sends nothing for the idle time-out has failed.
/// - A registry may have several [`Hosts`], each with TLS of its own. They are tried in order, until one answers as it should; a transfer that breaks
///   off goes on at the next one. A mirror is asked twice at most before the next has its turn.
/// - `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` of the environment (also in lower case) are respected, except for this machine itself.
///
/// Clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    pub(super) table: Arc<Table>,
    pub(super) auth: Arc<Authenticator>,
    pub(super) parts: Parts,
    pub(super) uploads: Uploads,
}

impl RegistryClient {
    /// A client with the defaults, to be changed.
    pub fn builder() -> RegistryClientBuilder {
        RegistryClientBuilder::default()
    }
}

/// Makes a [`RegistryClient`].
#[derive(Debug)]
pub struct RegistryClientBuilder {
    credentials: Arc<dyn Credentials>,
    hosts: Hosts,
    plain_http: PlainHttp,
    retry: RetryPolicy,
    parts: Parts,
    uploads: Uploads,
    connect_timeout: Duration,
    idle_timeout: Duration,
    user_agent: String,
    roots: Vec<CertificateDer<'static>>,
}

impl Default for RegistryClientBuilder {
    fn default() -> Self {
        Self {
            credentials: Arc::new(Anonymous),
            hosts: Hosts::new(),
            plain_http: PlainHttp::default(),
            retry: RetryPolicy::default(),
            parts: Parts::default(),
            uploads: Uploads::default(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            user_agent: concat!("longshore/", env!("CARGO_PKG_VERSION")).to_owned(),
            roots: Vec::new(),
        }
    }
}

impl RegistryClientBuilder {
    /// Where credentials come from. Default: [`Anonymous`].
    pub fn credentials(mut self, credentials: Arc<dyn Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Mirrors, and how hosts are trusted. Default: every registry under its own name.
    pub fn hosts(mut self, hosts: Hosts) -> Self {
        self.hosts = hosts;
        self
    }

    /// Which registries are spoken to without TLS. Default: those on this machine.
    pub fn plain_http(mut self, plain_http: PlainHttp) -> Self {
        self.plain_http = plain_http;
        self
    }

    /// How requests are repeated.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// How large blobs are fetched in parts.
    pub fn parts(mut self, parts: Parts) -> Self {
        self.parts = parts;
        self
    }

    /// How blobs are sent.
    pub fn uploads(mut self, uploads: Uploads) -> Self {
        self.uploads = uploads;
        self
    }

    /// How long a connection may take to come up. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a server may send (or take) nothing before it counts as failed. Default: 30 s. There is no limit
    /// to the whole of a transfer.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// What the client calls itself. Default: `longshore/<version>`.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// A certificate authority to trust besides the system's, in DER.
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.roots.push(CertificateDer::from(der.into()));
        self
    }

    /// Builds the client. Reads the system's certificate authorities from disk (a few milliseconds); that there are
    /// none is an error only when the first HTTPS connection is made.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a user agent that no header can carry or a certificate that is none.
    pub fn build(self) -> Result<RegistryClient> {
        let roots = tls::roots(&self.roots)?;
        let usual = Connections::new(&self.user_agent, self.connect_timeout, tls::config(roots.clone())?)?;
        let manner = Manner {
            plain: self.plain_http,
            retry: self.retry,
            connect: self.connect_timeout,
            idle: self.idle_timeout,
            user_agent: self.user_agent,
            roots,
            usual,
        };
        Ok(RegistryClient {
            table: Arc::new(Table::new(self.hosts, manner)),
            auth: Arc::new(Authenticator::new(self.credentials)),
            parts: self.parts,
            uploads: self.uploads,
        })
    }
}
