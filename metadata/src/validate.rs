//! What names and labels may look like. Stores check every batch with these; callers may do so earlier, for better messages.

use std::collections::BTreeMap;
use std::str::FromStr;

use oci_spec::image::Digest;

use crate::{Error, Key, Kind, Resource, Result, Value};

/// The most bytes that an identifier (of a namespace or container) may have; containerd's limit.
pub const MAX_IDENTIFIER: usize = 76;
/// The most bytes that any other name may have.
pub const MAX_NAME: usize = 4096;
/// The most bytes that a label's key and value may have together; containerd's limit.
pub const MAX_LABEL: usize = 4096;

fn invalid(what: &'static str, value: &str, reason: impl Into<String>) -> Error {
    // An error is shown to people: no megabytes of a hostile name.
    let shown: String = value.chars().take(128).collect();
    Error::Invalid {
        what,
        value: if shown.len() < value.len() {
            shown + "…"
        } else {
            shown
        },
        reason: reason.into(),
    }
}

/// An identifier as containerd's: `[A-Za-z0-9]+([._-][A-Za-z0-9]+)*`, of at most [`MAX_IDENTIFIER`] bytes.
fn identifier(what: &'static str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(invalid(what, value, "it is empty"));
    }
    if value.len() > MAX_IDENTIFIER {
        return Err(invalid(
            what,
            value,
            format!("it is longer than {MAX_IDENTIFIER} bytes"),
        ));
    }
    if !value
        .split(['.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
    {
        return Err(invalid(
            what,
            value,
            "it must be letters and digits, with single '.', '_' or '-' between them",
        ));
    }
    Ok(())
}

/// A name that people or other programs chose freely: not empty, not too long, no control characters and no white space.
fn name(what: &'static str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(invalid(what, value, "it is empty"));
    }
    if value.len() > MAX_NAME {
        return Err(invalid(what, value, format!("it is longer than {MAX_NAME} bytes")));
    }
    if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid(what, value, "it has white space or control characters"));
    }
    Ok(())
}

/// Checks the name of a namespace.
pub fn namespace(value: &str) -> Result<()> {
    identifier("namespace", value)
}

/// Checks the id of a container.
pub fn container_id(value: &str) -> Result<()> {
    identifier("container id", value)
}

/// Checks the name of an image. It is mostly a reference, but need not be one.
pub fn image_name(value: &str) -> Result<()> {
    name("image name", value)
}

/// Checks the id of a lease.
pub fn lease_id(value: &str) -> Result<()> {
    name("lease id", value)
}

/// Checks a digest, `<algorithm>:<hex>`.
pub fn digest(value: &str) -> Result<()> {
    name("digest", value)?;
    match Digest::from_str(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid("digest", value, error.to_string())),
    }
}

/// Checks labels: a key is not empty, and key and value have at most [`MAX_LABEL`] bytes together.
pub fn labels(labels: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in labels {
        if key.is_empty() {
            return Err(invalid("label", value, "its key is empty"));
        }
        if key.len() + value.len() > MAX_LABEL {
            return Err(invalid(
                "label",
                key,
                format!("key and value are longer than {MAX_LABEL} bytes together"),
            ));
        }
    }
    Ok(())
}

/// Checks a resource.
pub fn resource(value: &Resource) -> Result<()> {
    match value {
        Resource::Content(value) => digest(value),
        Resource::Ingest(reference) => name("ingest", reference),
        Resource::Snapshot { snapshotter, key } => {
            identifier("snapshotter", snapshotter)?;
            name("snapshot key", key)
        }
        Resource::Custom { kind, id } => {
            identifier("kind of resource", kind)?;
            if ["content", "snapshot", "ingest", "image", "container"].contains(&kind.as_str()) {
                return Err(invalid("kind of resource", kind, "it has a meaning of its own already"));
            }
            name("resource", id)
        }
    }
}

/// Checks a key.
pub fn key(key: &Key) -> Result<()> {
    match key.kind {
        Kind::Namespace | Kind::Removal if !key.namespace.is_empty() => {
            return Err(invalid(
                "namespace",
                &key.namespace,
                "a record of this kind has the empty namespace",
            ));
        }
        Kind::Namespace | Kind::Removal => {}
        _ => namespace(&key.namespace)?,
    }
    match key.kind {
        Kind::Namespace => namespace(&key.id),
        Kind::Image => image_name(&key.id),
        Kind::Container => container_id(&key.id),
        Kind::Lease => lease_id(&key.id),
        Kind::Content => digest(&key.id),
        Kind::Snapshot => resource(&format!("snapshot/{}", key.id).parse()?),
        Kind::Removal => resource(&key.id.parse()?),
    }
}

/// Checks all of a record that is to be put.
pub(crate) fn put(target: &Key, given: &BTreeMap<String, String>, value: &Value) -> Result<()> {
    key(target)?;
    labels(given)?;
    match (target.kind, value) {
        (Kind::Namespace, Value::Namespace)
        | (Kind::Image, Value::Image(_))
        | (Kind::Container, Value::Container(_))
        | (Kind::Content | Kind::Snapshot | Kind::Removal, Value::Labels) => Ok(()),
        (Kind::Lease, Value::Lease(lease)) => lease.resources.iter().try_for_each(resource),
        _ => Err(invalid(
            "record",
            &target.id,
            "what it says is not of the kind of its key",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn identifiers() {
        for good in ["a", "default", "k8s.io", "A-1_b.2", &"x".repeat(76)] {
            assert!(namespace(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a/b", "ä", "a b", "..", "a\0", &"x".repeat(77)] {
            assert_eq!(namespace(bad).map_err(|e| e.kind()), Err(ErrorKind::Invalid), "{bad}");
        }
    }

    #[test]
    fn names_are_freer() {
        assert!(image_name("docker.io/library/alpine:3.20@sha256:00").is_ok());
        for bad in ["", "a b", "a\nb", "\u{1b}[2J", &"x".repeat(4097)] {
            assert!(image_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_bounded_and_messages_are_too() {
        let labelled = |key: &str, value: usize| BTreeMap::from([(key.to_owned(), "v".repeat(value))]);
        assert!(labels(&labelled("key", 4093)).is_ok());
        assert!(labels(&labelled("key", 4094)).is_err());
        assert!(labels(&labelled("", 1)).is_err());
        let message = image_name(&"x".repeat(1 << 20)).expect_err("too long").to_string();
        assert!(message.len() < 300, "{message}");
    }

    #[test]
    fn keys_by_kind() {
        let sha = format!("sha256:{}", "0".repeat(64));
        for good in [
            Key::namespace("a"),
            Key::image("a", "b:c"),
            Key::content("a", &sha),
            Key::snapshot("a", "overlay", "x/y"),
            Key::removal(&Resource::Content(sha.clone())),
            Key::removal(&Resource::custom("bundle", "a/b")),
        ] {
            assert!(key(&good).is_ok(), "{good}");
        }
        for bad in [
            Key::new("a", Kind::Namespace, "b"),
            Key::image("", "b"),
            Key::content("a", "sha256:../../etc"),
            Key::new("a", Kind::Snapshot, "no-snapshotter"),
            Key::new("", Kind::Removal, "nothing"),
            Key::removal(&Resource::custom("image", "b:c")),
        ] {
            assert_eq!(key(&bad).map_err(|e| e.kind()), Err(ErrorKind::Invalid), "{bad}");
        }
    }
}
