use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::{Error, Result};

/// What a host is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Capability {
    /// Manifests and blobs by their digest: anyone can be trusted with it.
    Pull,
    /// What a tag stands for: whoever answers decides what is run.
    Resolve,
    /// Taking images.
    Push,
}

impl Capability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
        }
    }
}

/// Whether a host must prove by a certificate who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verification {
    /// It must.
    #[default]
    Required,
    /// Any certificate will do: who is on the way can read credentials and answer what a tag stands for.
    Skipped,
}

/// A place where a registry is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The root of its API, which ends in no slash.
    pub(crate) url: Url,
    pub(crate) capabilities: BTreeSet<Capability>,
    pub(crate) verification: Verification,
    /// PEM files of certificate authorities.
    pub(crate) authorities: Vec<PathBuf>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) headers: HeaderMap,
    pub(crate) dial_timeout: Option<Duration>,
}

/// A client's certificate and its key, which may be in the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Host {
    /// A host by its URL (`http` or `https`), to which `/v2` is added unless it ends so. It has all capabilities.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for what is not such a URL.
    pub fn new(url: &str) -> Result<Self> {
        let mut host = Self::at_api_root(url)?;
        if !host.url.path().ends_with("/v2") {
            let path = format!("{}/v2", host.url.path().trim_end_matches('/'));
            host.url.set_path(&path);
        }
        Ok(host)
    }

    /// A host whose API's root is not called `/v2`: the URL's path is taken as it is (`override_path` in `hosts.toml`).
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for what is not such a URL.
    pub fn at_api_root(url: &str) -> Result<Self> {
        let url = parse(url).map_err(|reason| Error::InvalidHost {
            host: url.to_owned(),
            reason,
        })?;
        Ok(Self {
            url,
            capabilities: BTreeSet::from([Capability::Pull, Capability::Resolve, Capability::Push]),
            verification: Verification::Required,
            authorities: Vec::new(),
            identities: Vec::new(),
            headers: HeaderMap::new(),
            dial_timeout: None,
        })
    }

    /// What it is asked for.
    pub fn capabilities(mut self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        self.capabilities = capabilities.into_iter().collect();
        self
    }

    /// Trusts the certificate authorities of a PEM file besides the system's. It is read when the host is first needed.
    pub fn authority_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities.push(path.into());
        self
    }

    /// Shows a client certificate (PEM, with its chain) to this host only. Of several the first counts that the host can use.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identities.push(Identity {
            certificate: certificate.into(),
            key: key.into(),
        });
        self
    }

    /// Whether it must prove who it is.
    pub fn verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// A header of every request to this host. It does not go along a redirect to another one.
    pub fn header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        // It may be a secret, and nobody needs to see it.
        value.set_sensitive(true);
        self.headers.append(name, value);
        self
    }

    /// How long a connection may take to come up, instead of the client's own limit.
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = Some(timeout);
        self
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let whole = if text.starts_with("http://") || text.starts_with("https://") {
        text.to_owned()
    } else if text.contains("://") {
        return Err("it is neither http nor https".into());
    } else {
        format!("https://{text}")
    };
    let mut url = Url::parse(&whole).map_err(|error| error.to_string())?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("it names no host".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user and a password do not belong there: give them as credentials".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or a fragment".into());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}
