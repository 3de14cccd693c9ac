use std::collections::BTreeMap;

use async_trait::async_trait;
use oci_spec::distribution::Reference;
use oci_spec::image::Digest;

use crate::{Allow, Error, ImageVerifier, Result, VerifyRequest};

/// Allows images of the registries and repositories that it lists, and no others.
///
/// ```
/// use longshore_distribution::AllowList;
///
/// let allowed = AllowList::new(["registry.example", "docker.io/library", "quay.io/team/app"]);
/// assert!(allowed.allows(&"alpine:3.20".parse().unwrap()));
/// assert!(!allowed.allows(&"docker.io/library-evil/x".parse().unwrap()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<String>);

impl AllowList {
    /// Each entry is a registry (`registry.example:5000`), or one with the first parts of a repository's name: whole parts, so that `docker.io/lib` does
    /// not allow `docker.io/library`.
    pub fn new(entries: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let clean = |entry: String| entry.trim_end_matches('/').to_owned();
        Self(entries.into_iter().map(|entry| clean(entry.into())).collect())
    }

    /// Whether an image may come in.
    pub fn allows(&self, reference: &Reference) -> bool {
        self.entry(reference).is_some()
    }

    fn entry(&self, reference: &Reference) -> Option<&str> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let covers = |entry: &&String| {
            let rest = name.strip_prefix(entry.as_str());
            !entry.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.0.iter().find(covers).map(String::as_str)
    }
}

#[async_trait]
impl ImageVerifier for AllowList {
    async fn verify(&self, request: VerifyRequest<'_>) -> Result<Allow> {
        match self.entry(request.reference) {
            Some(entry) => Ok(Allow {
                reason: format!("{entry} is on the list"),
            }),
            None => Err(refused(
                request,
                "it is of no registry or repository on the list".into(),
            )),
        }
    }
}

/// Allows names that it knows, each with one digest only: a tag that moves is refused until its pin moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestPins(BTreeMap<String, Digest>);

impl DigestPins {
    /// None yet: nothing may come in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pins what a name stands for: the digest of its index, or of the manifest if it has none. Of the name, registry, repository and tag count.
    pub fn with(mut self, reference: &Reference, digest: Digest) -> Self {
        self.0.insert(name(reference), digest);
        self
    }
}

fn name(reference: &Reference) -> String {
    let tag = reference.tag().unwrap_or("latest");
    format!("{}/{}:{tag}", reference.registry(), reference.repository())
}

#[async_trait]
impl ImageVerifier for DigestPins {
    async fn verify(&self, request: VerifyRequest<'_>) -> Result<Allow> {
        let found = request.descriptor.digest();
        match self.0.get(&name(request.reference)) {
            Some(pinned) if pinned == found => Ok(Allow {
                reason: "it has the digest that is pinned".into(),
            }),
            Some(pinned) => Err(refused(
                request,
                format!("its digest is {found}, but {pinned} is pinned"),
            )),
            None => Err(refused(request, "no digest is pinned for it".into())),
        }
    }
}

pub(super) fn refused(request: VerifyRequest<'_>, reason: String) -> Error {
    Error::Refused {
        reference: request.reference.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::image::{Descriptor, MediaType};

    use super::*;

    #[test]
    fn whole_parts_of_names() {
        let list = AllowList::new(["r.example:5000/", "docker.io/library", ""]);
        for (name, allowed) in [
            ("r.example:5000/a/b", true),
            ("r.example/a/b", false),
            ("r.example:50000/a", false),
            ("alpine", true),
            ("docker.io/library/alpine:3", true),
            ("docker.io/librarian/alpine", false),
            ("docker.io/me/library", false),
        ] {
            assert_eq!(list.allows(&name.parse().unwrap()), allowed, "{name}");
        }
    }

    #[tokio::test]
    async fn pins() {
        let (one, two) = (longshore_content::sha256(b"one"), longshore_content::sha256(b"two"));
        let pins = DigestPins::new().with(&"alpine:3".parse().unwrap(), one.clone());
        let ask = async |name: &str, digest: &Digest| {
            let descriptor = Descriptor::new(MediaType::ImageManifest, 1, digest.clone());
            pins.verify(VerifyRequest::new(&name.parse().unwrap(), &descriptor))
                .await
        };
        ask("docker.io/library/alpine:3", &one).await.unwrap();
        let moved = ask("alpine:3", &two).await.unwrap_err();
        assert!(
            moved.to_string().contains(two.as_ref()) && moved.kind() == crate::ErrorKind::Refused,
            "{moved}"
        );
        assert!(ask("alpine:4", &one).await.is_err());
    }
}
