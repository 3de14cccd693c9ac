//! What a record refers to by itself: its fields, and the labels that containerd's collector reads.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::{Node, Resource, Value, time};

const GC: &str = "containerd.io/gc.";
const REF: &str = "containerd.io/gc.ref.";
const BACK_REF: &str = "containerd.io/gc.bref.";
const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";
const FLAT: &str = "containerd.io/gc.flat";

/// The resources that `containerd.io/gc.ref.*` labels name. `gc.ref.content`, and the same with anything after a `.` or `/`, has a digest as value; `gc.ref.snapshot.<snapshotter>`,
/// with anything after a `/`, a key; that of any other kind an id of that kind.
pub(crate) fn of_labels(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Resource> + '_ {
    references(labels).filter_map(|node| match node {
        Node::Resource(resource) => Some(resource),
        _ => None,
    })
}

/// What `containerd.io/gc.ref.*` labels name, images and containers among it.
pub(crate) fn references(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Node> + '_ {
    named(labels, REF)
}

/// What `containerd.io/gc.bref.*` labels name: the record that has them lives as long as these do.
pub(crate) fn back_references(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Node> + '_ {
    named(labels, BACK_REF)
}

fn named<'a>(labels: &'a BTreeMap<String, String>, prefix: &'static str) -> impl Iterator<Item = Node> + 'a {
    labels
        .range(prefix.to_owned()..)
        .map_while(move |(label, value)| Some((label.strip_prefix(prefix)?, value)))
        .filter_map(|(rest, value)| node(rest, value))
}

/// `content`, `snapshot.<snapshotter>` and so on, with a name after it that says nothing.
fn node(label: &str, value: &str) -> Option<Node> {
    if let Some(rest) = label.strip_prefix("snapshot.") {
        let snapshotter = rest.split('/').next()?;
        return (!snapshotter.is_empty()).then(|| Resource::snapshot(snapshotter, value).into());
    }
    match label.split(['.', '/']).next()? {
        "" | "snapshot" => None,
        "content" => Some(Resource::Content(value.into()).into()),
        "ingest" => Some(Resource::Ingest(value.into()).into()),
        "image" => Some(Node::Image(value.into())),
        "container" => Some(Node::Container(value.into())),
        kind => Some(Resource::custom(kind, value).into()),
    }
}

/// What the labels say of a record's own life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// `containerd.io/gc.root`: it needs nobody that refers to it.
    pub(crate) root: bool,
    /// `containerd.io/gc.expire`, in RFC 3339. One that can't be read is as none.
    pub(crate) expires: Option<SystemTime>,
    /// `containerd.io/gc.flat`: a lease holds what it names, and not what that refers to.
    pub(crate) flat: bool,
}

impl Life {
    pub(crate) fn of(labels: &BTreeMap<String, String>) -> Self {
        // Most records have none of these labels.
        if labels.range(GC.to_owned()..).next().is_none() {
            return Self::default();
        }
        Self {
            root: labels.contains_key(ROOT),
            expires: labels.get(EXPIRE).and_then(|text| time::parse(text)),
            flat: labels.contains_key(FLAT),
        }
    }
}

/// The resources that a record's value names.
pub(crate) fn of_value(value: &Value) -> Vec<Resource> {
    match value {
        Value::Image(image) => vec![Resource::Content(image.target.digest().to_string())],
        Value::Container(container) => {
            let mut resources: Vec<_> = container.image_digest.iter().cloned().map(Resource::Content).collect();
            if !container.snapshot.is_empty() {
                resources.push(Resource::snapshot(&container.snapshotter, &container.snapshot));
            }
            resources
        }
        Value::Lease(lease) => lease.resources.clone(),
        Value::Namespace | Value::Labels => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_of_containerd() {
        let labels = labels(&[
            ("containerd.io/gc.ref.content", "sha256:a"),
            ("containerd.io/gc.ref.content.config", "sha256:b"),
            ("containerd.io/gc.ref.content.l.0", "sha256:c"),
            ("containerd.io/gc.ref.content/x", "sha256:d"),
            ("containerd.io/gc.ref.snapshot.overlayfs", "k1"),
            ("containerd.io/gc.ref.snapshot.native/second", "k2"),
            ("containerd.io/gc.ref.snapshot.", "no"),
            ("containerd.io/gc.ref.image.base", "alpine"),
            ("containerd.io/gc.ref.cache/x", "k3"),
            ("containerd.io/gc.bref.content", "sha256:e"),
            ("containerd.io/gc.root", "2020"),
            ("other", "sha256:no"),
        ]);
        let content = |digit: &str| Node::from(Resource::Content(format!("sha256:{digit}")));
        let expected = vec![
            Node::from(Resource::custom("cache", "k3")),
            content("a"),
            content("b"),
            content("c"),
            content("d"),
            Node::Image("alpine".into()),
            Resource::snapshot("native", "k2").into(),
            Resource::snapshot("overlayfs", "k1").into(),
        ];
        assert_eq!(references(&labels).collect::<Vec<_>>(), expected);
        assert_eq!(of_labels(&labels).count(), 7, "an image is no resource");
        assert_eq!(back_references(&labels).collect::<Vec<_>>(), [content("e")]);
    }

    #[test]
    fn a_label_that_only_begins_like_one_is_another_kind() {
        let labels = labels(&[("containerd.io/gc.ref.contents", "sha256:a")]);
        assert_eq!(
            of_labels(&labels).collect::<Vec<_>>(),
            [Resource::custom("contents", "sha256:a")]
        );
    }

    #[test]
    fn labels_about_the_record_itself() {
        assert_eq!(Life::of(&labels(&[("a", "b")])), Life::default());
        let life = Life::of(&labels(&[
            ("containerd.io/gc.expire", "1970-01-01T00:00:07Z"),
            ("containerd.io/gc.flat", ""),
            ("containerd.io/gc.root", ""),
        ]));
        let expires = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7);
        assert_eq!((life.root, life.flat, life.expires), (true, true, Some(expires)));
        let nonsense = Life::of(&labels(&[("containerd.io/gc.expire", "tomorrow")]));
        assert_eq!(nonsense, Life::default());
    }
}
