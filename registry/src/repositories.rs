//! What the repositories hold: which blobs, which manifests under which media type, which tags.

use std::collections::{BTreeMap, HashMap, HashSet};

use oci_spec::image::Digest;

use crate::manifest::Summary;

#[derive(Debug, Default)]
pub(crate) struct Repositories(BTreeMap<String, Repository>);

#[derive(Debug, Default)]
pub(crate) struct Repository {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) manifests: HashMap<Digest, Manifest>,
    pub(crate) tags: BTreeMap<String, Digest>,
}

/// What is known of a manifest without reading it again.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) summary: Summary,
}

impl Repositories {
    pub(crate) fn get(&self, name: &str) -> Option<&Repository> {
        self.0.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Repository> {
        self.0.get_mut(name)
    }

    /// A repository comes into being by the first thing that is put in.
    pub(crate) fn make(&mut self, name: &str) -> &mut Repository {
        self.0.entry(name.into()).or_default()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(crate) fn has_blob(&self, name: &str, digest: &Digest) -> bool {
        self.get(name)
            .is_some_and(|repository| repository.blobs.contains(digest))
    }

    /// A repository that has the blob.
    pub(crate) fn holder(&self, digest: &Digest) -> Option<&str> {
        self.0
            .iter()
            .find(|(_, repository)| repository.blobs.contains(digest))
            .map(|(name, _)| name.as_str())
    }
}
