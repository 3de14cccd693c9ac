use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::host::PlainHttp;
use super::http::Http;
use super::retry::RetryPolicy;
use crate::auth::Authenticator;
use crate::{Anonymous, Credentials, Error, Result};

/// A client for any number of registries: [`Resolver`](crate::Resolver), [`Fetcher`](crate::Fetcher) and
/// [`Pusher`](crate::Pusher) by the OCI distribution specification 1.1.
///
/// It keeps connections and tokens: make one and share it. Nothing is sent before the first request; no task runs in
/// the background. Needs a tokio runtime with time and I/O enabled.
///
/// - Anonymous, Basic and Bearer authentication, each demanded by the registry's own challenge; tokens are renewed when
///   they run out. A credential goes to the registry it is for and to the token server that this registry names by https,
///   never along a redirect to another host.
/// - Requests that got no answer, or 408, 429 and 5xx, are repeated ([`RetryPolicy`]). A body that is cut is the
///   caller's to resume ([`Pull`](crate::Pull) does).
/// - A server that sends nothing for the idle time-out has failed.
/// - `HTTPS_PROXY` and `HTTP_PROXY` of the environment are respected, except for this machine itself.
#[derive(Debug)]
pub struct RegistryClient {
    pub(super) http: Http,
    pub(super) auth: Authenticator,
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
    plain_http: PlainHttp,
    retry: RetryPolicy,
    connect_timeout: Duration,
    idle_timeout: Duration,
    user_agent: String,
    roots: Vec<CertificateDer<'static>>,
}

impl Default for RegistryClientBuilder {
    fn default() -> Self {
        Self {
            credentials: Arc::new(Anonymous),
            plain_http: PlainHttp::default(),
            retry: RetryPolicy::default(),
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
        let tls = tls_config(self.roots)?;
        let base = || {
            reqwest::Client::builder()
                .user_agent(&self.user_agent)
                .connect_timeout(self.connect_timeout)
                // Followed by hand, so that no credential goes along.
                .redirect(reqwest::redirect::Policy::none())
                // Retried by hand, by one rule for all.
                .retry(reqwest::retry::never())
                .referer(false)
                .tls_backend_preconfigured(tls.clone())
        };
        let setup = |error: reqwest::Error| setup("HTTP client", error);
        Ok(RegistryClient {
            http: Http {
                remote: base().build().map_err(setup)?,
                local: base().no_proxy().build().map_err(setup)?,
                plain: self.plain_http,
                retry: self.retry,
                idle: self.idle_timeout,
            },
            auth: Authenticator::new(self.credentials),
        })
    }
}

/// TLS on *ring*, handed over explicitly: a library must not install a provider for the whole process.
fn tls_config(extra: Vec<CertificateDer<'static>>) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    // A certificate of the system that can't be read is the system's matter; the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in extra {
        roots
            .add(certificate)
            .map_err(|error| setup("root certificate", error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup("TLS", error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn setup(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Setup {
        what,
        source: Box::new(source),
    }
}
