//! One host of a registry, ready to be spoken to.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::distribution::Reference;
use url::Url;

use super::http::Http;
use crate::auth::{Action, Scope};
use crate::hosts::Capability;
use crate::{Error, Result};

/// How long a host that broke off is tried after the others.
const PENANCE: Duration = Duration::from_secs(60);

/// A host with its connections.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) http: Http,
    /// What messages and credentials know it by: the registry's own name, or the mirror's.
    pub(super) name: String,
    /// The root of its API, which ends in no slash.
    pub(super) root: Url,
    pub(super) capabilities: BTreeSet<Capability>,
    /// What a mirror is told of whose images are meant.
    pub(super) namespace: Option<String>,
    pub(super) broke_off: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// A URL of the repository that `reference` names. Every part was checked by [`checked`](super::host::checked), so that no part can leave
    /// its place.
    pub(super) fn url(&self, reference: &Reference, path: &str) -> Result<Url> {
        self.url_of(reference.repository(), path)
    }

    pub(super) fn url_of(&self, repository: &str, path: &str) -> Result<Url> {
        let text = format!("{}/{repository}/{path}", self.root.as_str().trim_end_matches('/'));
        let mut url = Url::parse(&text).map_err(|error| Error::InvalidReference {
            reference: format!("{}/{repository}", self.name),
            reason: error.to_string(),
        })?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    pub(super) fn scope(&self, reference: &Reference, action: Action) -> Scope {
        Scope {
            host: self.name.clone(),
            repository: reference.repository().to_owned(),
            action,
            mount_from: None,
        }
    }

    /// A transfer from here broke off: for a while the other hosts come first.
    pub(super) fn breaks_off(&self) {
        *self.broke_off.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When it last broke off, if that is not long ago.
    pub(super) fn penance(&self) -> Option<Instant> {
        let at = *self.broke_off.lock().unwrap_or_else(PoisonError::into_inner);
        at.filter(|at| at.elapsed() < PENANCE)
    }
}
