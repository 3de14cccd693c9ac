//! Where registries are reached: themselves, or mirrors in front of them.

mod duration;
mod file;
mod host;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use url::Url;

#[cfg(feature = "fuzzing")]
pub(crate) use file::parse;
pub use host::{Capability, Host, Verification};

use crate::Result;

/// Which hosts serve which registry, in the order in which they are tried.
///
/// Either given by the program ([`with`](Self::with)) or read from containerd's tree of `hosts.toml` files
/// ([`tree`](Self::tree)). What the program gives comes before any file. A registry that neither knows is reached under its own name.
///
/// # The tree
/// For registry `HOST:PORT` the first directory that exists of `HOST_PORT_`, `HOST:PORT` and `_default` counts. Its `hosts.toml` has
/// (containerd's `docs/hosts.md`):
///
/// ```toml
/// server = "https://registry.example"       # tried last; without it the registry itself
///
/// [host."https://mirror.example"]           # tried first, in the order of the file
/// capabilities = ["pull", "resolve"]        # default: all, also "push"
/// ca = "ca.pem"                             # or a list; beside the file; trusted besides the system's
/// client = [["client.pem", "client.key"]]   # or one file with both
/// skip_verify = false
/// override_path = false                     # true: the URL's path is the API's root; else `/v2` is added to it
/// dial_timeout = "3s"
/// [host."https://mirror.example".header]
/// x-team = "build"
/// ```
///
/// The same keys at the top are about `server`. Without a `hosts.toml`, `*.crt` files of the directory are CAs and `x.cert` with `x.key` a client's
/// certificate, as with Docker. A file that can't be read or has a key that is not known is an error, which names file, line and key: what it was to
/// protect would not be protected. Files are read when a client first needs the registry.
///
/// ```
/// use longshore_distribution::{Capability, Host, Hosts, RegistryClient};
///
/// let hosts = Hosts::new().with("docker.io", [
///     Host::new("http://cache.internal:5000")?.capabilities([Capability::Pull]),
///     Host::new("https://registry-1.docker.io")?,
/// ]);
/// let client = RegistryClient::builder().hosts(hosts).build()?;
/// # Ok::<(), longshore_distribution::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    trees: Vec<PathBuf>,
    given: BTreeMap<String, Vec<Host>>,
}

impl Hosts {
    /// Every registry under its own name.
    pub fn new() -> Self {
        Self::default()
    }

    /// What this machine's container programs are told: the trees `/etc/containerd/certs.d`, `/etc/docker/certs.d` and podman's `/etc/containers/certs.d`.
    pub fn of_system() -> Self {
        let trees = [
            "/etc/containerd/certs.d",
            "/etc/docker/certs.d",
            "/etc/containers/certs.d",
        ];
        trees.into_iter().fold(Self::new(), Self::tree)
    }

    /// Containerd's tree in `directory`, usually `/etc/containerd/certs.d`. It may be missing. Of several the first that has the registry counts.
    pub fn tree(mut self, directory: impl Into<PathBuf>) -> Self {
        self.trees.push(directory.into());
        self
    }

    /// The hosts of one registry, written as in a reference (`docker.io`, `registry.example:5000`). The registry itself is one only if it is listed.
    pub fn with(mut self, registry: impl Into<String>, hosts: impl IntoIterator<Item = Host>) -> Self {
        self.given.insert(registry.into(), hosts.into_iter().collect());
        self
    }

    /// The hosts of a registry whose own address is `own`; `None` when nothing is said of it. Reads files.
    pub(crate) fn find(&self, registry: &str, own: &Url) -> Result<Option<Vec<Host>>> {
        if let Some(given) = self.given.get(registry) {
            return Ok(Some(given.clone()));
        }
        for tree in &self.trees {
            if let Some(found) = tree::find(tree, registry, own)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
