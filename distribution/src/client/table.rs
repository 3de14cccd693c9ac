//! The hosts of each registry.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci_spec::image::Digest;
use rustls::RootCertStore;
use url::Url;

use super::endpoint::Endpoint;
use super::host::{PlainHttp, api_authority};
use super::http::{Connections, Http, authority};
use super::retry::RetryPolicy;
use super::tls::{self, Show};
use crate::hosts::{Capability, Host, Hosts};
use crate::{Error, Result};

/// More registries than these are not remembered at once.
const MAX_KNOWN: usize = 1024;
/// More blobs than these are not remembered at once.
const MAX_SERVED: usize = 1024;
/// How many times a host is asked when there is another one.
const ATTEMPTS_AT_MIRRORS: u32 = 2;

/// What connections of all hosts have in common.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) plain: PlainHttp,
    pub(super) retry: RetryPolicy,
    pub(super) connect: Duration,
    pub(super) idle: Duration,
    pub(super) user_agent: String,
    pub(super) roots: RootCertStore,
    /// For hosts of which nothing is said.
    pub(super) usual: Connections,
}

/// Finds and remembers the hosts of registries.
#[derive(Debug)]
pub(super) struct Table {
    hosts: Hosts,
    manner: Arc<Manner>,
    known: Mutex<HashMap<String, Arc<Registry>>>,
}

/// Whether another host is asked after one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Last,
}

impl Table {
    pub(super) fn new(hosts: Hosts, manner: Manner) -> Self {
        Self {
            hosts,
            manner: Arc::new(manner),
            known: Mutex::default(),
        }
    }

    /// The hosts of a registry, whose name was checked.
    pub(super) async fn registry(&self, name: &str) -> Result<Arc<Registry>> {
        if let Some(known) = self.lock().get(name) {
            return Ok(known.clone());
        }
        let (hosts, manner, name) = (self.hosts.clone(), self.manner.clone(), name.to_owned());
        // Reads files.
        let found = tokio::task::spawn_blocking(move || Registry::find(&hosts, &manner, name)).await;
        let found = match found {
            Ok(found) => Arc::new(found?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        Ok(known.entry(found.name.clone()).or_insert(found).clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Registry>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registry and its hosts, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) name: String,
    endpoints: Vec<Arc<Endpoint>>,
    served: Mutex<HashMap<Digest, Served>>,
}

/// Which hosts a blob came from, by their place in the list.
#[derive(Debug, Default)]
struct Served {
    by: BTreeSet<usize>,
    /// Those whose bytes were wrong.
    wrong: BTreeSet<usize>,
}

impl Registry {
    fn find(hosts: &Hosts, manner: &Manner, name: String) -> Result<Self> {
        let own = own_url(&name, &manner.plain)?;
        let found = hosts.find(&name, &own)?;
        let endpoints = match &found {
            Some(hosts) => hosts
                .iter()
                .enumerate()
                .map(|(at, host)| {
                    let place = if at + 1 == hosts.len() {
                        Place::Last
                    } else {
                        Place::Before
                    };
                    manner.endpoint(&name, host, &own, place).map(Arc::new)
                })
                .collect::<Result<_>>()?,
            None => vec![Arc::new(manner.usual_endpoint(&name, own)?)],
        };
        Ok(Self {
            name,
            endpoints,
            served: Mutex::default(),
        })
    }

    /// The hosts with a capability, those last that have just broken off.
    pub(super) fn with(&self, capability: Capability) -> Result<Vec<&Arc<Endpoint>>> {
        let mut all: Vec<_> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.capabilities.contains(&capability))
            .collect();
        if all.is_empty() {
            return Err(Error::NoHost {
                registry: self.name.clone(),
                capability: capability.name(),
            });
        }
        // Stable: the configured order among equals.
        all.sort_by_key(|endpoint| endpoint.penance());
        Ok(all)
    }

    /// The hosts that a blob may be fetched from: not those whose bytes were wrong.
    pub(super) fn sources(&self, digest: &Digest) -> Result<Vec<&Arc<Endpoint>>> {
        let mut all = self.with(Capability::Pull)?;
        if let Some(served) = self.lock().get(digest) {
            let wrong = |endpoint: &&Arc<Endpoint>| self.place(endpoint).is_some_and(|at| served.wrong.contains(&at));
            all.retain(|endpoint| !wrong(endpoint));
        }
        Ok(all)
    }

    /// Remembers where a blob comes from, when there is a choice.
    pub(super) fn serves(&self, endpoint: &Arc<Endpoint>, digest: &Digest) {
        let Some(at) = self.place(endpoint).filter(|_| self.endpoints.len() > 1) else {
            return;
        };
        let mut served = self.lock();
        if served.len() >= MAX_SERVED {
            served.clear();
        }
        served.entry(digest.clone()).or_default().by.insert(at);
    }

    /// The bytes of a blob were wrong; whether another host may have the right ones.
    pub(super) fn reject(&self, digest: &Digest) -> bool {
        {
            let mut all = self.lock();
            let Some(served) = all.get_mut(digest) else {
                return false;
            };
            let by = std::mem::take(&mut served.by);
            served.wrong.extend(by);
        }
        let others = self.sources(digest).is_ok_and(|others| !others.is_empty());
        if !others {
            // All were wrong. The next pull begins without prejudice.
            self.lock().remove(digest);
        }
        others
    }

    fn place(&self, endpoint: &Arc<Endpoint>) -> Option<usize> {
        self.endpoints.iter().position(|other| Arc::ptr_eq(other, endpoint))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to tell when every host failed, each with its reason.
    pub(super) fn failed(&self, mut failures: Vec<(String, Error)>) -> Error {
        let Some((_, last)) = failures.pop() else {
            return Error::NoHost {
                registry: self.name.clone(),
                capability: Capability::Pull.name(),
            };
        };
        if failures.is_empty() {
            return last;
        }
        let others: Vec<_> = failures
            .into_iter()
            .map(|(name, error)| format!("{name}: {}", chain(&error)))
            .collect();
        Error::AllHosts {
            registry: self.name.clone(),
            others: others.join("; "),
            source: Box::new(last),
        }
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}

/// The root of a registry's API under its own name.
fn own_url(name: &str, plain: &PlainHttp) -> Result<Url> {
    let authority = api_authority(name);
    let scheme = if plain.covers(authority) { "http" } else { "https" };
    Url::parse(&format!("{scheme}://{authority}/v2")).map_err(|error| Error::InvalidReference {
        reference: name.to_owned(),
        reason: error.to_string(),
    })
}

impl Manner {
    /// A registry under its own name, of which nothing is said.
    fn usual_endpoint(&self, name: &str, root: Url) -> Result<Endpoint> {
        let host = Host::new(root.as_str())?;
        Ok(self.assemble(
            name.to_owned(),
            &host,
            None,
            self.retry.clone(),
            (self.usual.clone(), self.usual.clone()),
        ))
    }

    fn endpoint(&self, registry: &str, host: &Host, own: &Url, place: Place) -> Result<Endpoint> {
        let is_itself = host.url.origin() == own.origin();
        let name = if is_itself {
            registry.to_owned()
        } else {
            authority(&host.url)
        };
        let mut retry = self.retry.clone();
        if place == Place::Before {
            retry.attempts = retry.attempts.min(ATTEMPTS_AT_MIRRORS);
        }
        let connect = |show| {
            let config = tls::host_config(self.roots.clone(), host, show)?;
            Connections::new(&self.user_agent, host.dial_timeout.unwrap_or(self.connect), config)
        };
        let own = connect(Show::Identity)?;
        let guest = if host.identities.is_empty() {
            own.clone()
        } else {
            connect(Show::Nothing)?
        };
        let namespace = (!is_itself).then(|| registry.to_owned());
        Ok(self.assemble(name, host, namespace, retry, (own, guest)))
    }

    fn assemble(
        &self,
        name: String,
        host: &Host,
        namespace: Option<String>,
        retry: RetryPolicy,
        (own, guest): (Connections, Connections),
    ) -> Endpoint {
        Endpoint {
            http: Http {
                own,
                guest,
                origin: host.url.origin(),
                own_plain: (host.url.scheme() == "http").then(|| authority(&host.url)),
                headers: host.headers.clone(),
                plain: self.plain.clone(),
                retry,
                idle: self.idle,
            },
            name,
            root: host.url.clone(),
            capabilities: host.capabilities.clone(),
            namespace,
            broke_off: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::distribution::Reference;

    use super::*;
    use crate::parse_reference;

    fn table(plain: PlainHttp) -> Arc<Table> {
        let client = crate::RegistryClient::builder().plain_http(plain).build().unwrap();
        client.table
    }

    #[tokio::test]
    async fn urls() {
        let default = PlainHttp::default();
        let some = PlainHttp::Hosts(BTreeSet::from(["r.internal:5000".to_owned()]));
        for (text, plain, expected) in [
            (
                "alpine",
                &default,
                "https://registry-1.docker.io/v2/library/alpine/manifests/x",
            ),
            (
                "index.docker.io/alpine",
                &default,
                "https://registry-1.docker.io/v2/library/alpine/manifests/x",
            ),
            ("me/app", &default, "https://registry-1.docker.io/v2/me/app/manifests/x"),
            (
                "docker.io/me/app:1",
                &default,
                "https://registry-1.docker.io/v2/me/app/manifests/x",
            ),
            ("quay.io/a/b", &default, "https://quay.io/v2/a/b/manifests/x"),
            ("localhost/a", &default, "http://localhost/v2/a/manifests/x"),
            (
                "localhost:5000/a/b_c/d--e",
                &default,
                "http://localhost:5000/v2/a/b_c/d--e/manifests/x",
            ),
            ("127.0.0.1:5000/a", &default, "http://127.0.0.1:5000/v2/a/manifests/x"),
            (
                "127.0.0.1:5000/a",
                &PlainHttp::Never,
                "https://127.0.0.1:5000/v2/a/manifests/x",
            ),
            (
                "r.internal:5000/a",
                &default,
                "https://r.internal:5000/v2/a/manifests/x",
            ),
            ("r.internal:5000/a", &some, "http://r.internal:5000/v2/a/manifests/x"),
            ("r.internal:5001/a", &some, "https://r.internal:5001/v2/a/manifests/x"),
            ("[::1]:5000/a/b:1", &default, "http://[::1]:5000/v2/a/b/manifests/x"),
            ("[2001:db8::7]/a", &default, "https://[2001:db8::7]/v2/a/manifests/x"),
        ] {
            let reference = parse_reference(text).unwrap();
            let registry = table(plain.clone()).registry(reference.registry()).await.unwrap();
            let endpoints = registry.with(Capability::Pull).unwrap();
            assert_eq!(endpoints.len(), 1);
            let url = endpoints[0].url(&reference, "manifests/x").unwrap();
            assert_eq!(url.as_str(), expected, "{text}");
            assert_eq!(endpoints[0].name, reference.registry());
        }
    }

    #[tokio::test]
    async fn mirrors_are_told_whose_images_are_meant() {
        let hosts = [
            Host::new("http://cache.example/x").unwrap(),
            Host::new("https://registry-1.docker.io").unwrap(),
        ];
        let client = crate::RegistryClient::builder().hosts(Hosts::new().with("docker.io", hosts));
        let table = client.build().unwrap().table;
        let registry = table.registry("docker.io").await.unwrap();
        let endpoints = registry.with(Capability::Pull).unwrap();
        let reference: Reference = "alpine".parse().unwrap();
        let urls: Vec<_> = endpoints
            .iter()
            .map(|one| one.url(&reference, "tags/list").unwrap().to_string())
            .collect();
        assert_eq!(
            urls,
            [
                "http://cache.example/x/v2/library/alpine/tags/list?ns=docker.io",
                "https://registry-1.docker.io/v2/library/alpine/tags/list"
            ]
        );
        let names: Vec<_> = endpoints.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["cache.example", "docker.io"]);
        endpoints[0].breaks_off();
        assert_eq!(registry.with(Capability::Pull).unwrap()[0].name, "docker.io");
    }
}
