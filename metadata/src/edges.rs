//! What a record refers to by itself: its fields, and the labels that containerd's collector reads.

use std::collections::BTreeMap;

use crate::{Resource, Value};

const REF_CONTENT: &str = "containerd.io/gc.ref.content";
const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// The resources that `containerd.io/gc.ref.*` labels name. `gc.ref.content`, and the same with anything after a `.` or `/`, has a digest as value; `gc.ref.snapshot.<snapshotter>`,
/// with anything after a `/`, a key.
pub(crate) fn of_labels(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Resource> + '_ {
    labels
        .range("containerd.io/gc.ref.".to_owned()..)
        .take_while(|(label, _)| label.starts_with("containerd.io/gc.ref."))
        .filter_map(|(label, value)| {
            if let Some(rest) = label.strip_prefix(REF_CONTENT) {
                return (rest.is_empty() || rest.starts_with(['.', '/'])).then(|| Resource::Content(value.clone()));
            }
            let snapshotter = label.strip_prefix(REF_SNAPSHOT)?.split('/').next()?;
            (!snapshotter.is_empty()).then(|| Resource::snapshot(snapshotter, value))
        })
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

    #[test]
    fn labels_of_containerd() {
        let labels = [
            ("containerd.io/gc.ref.content", "sha256:a"),
            ("containerd.io/gc.ref.content.config", "sha256:b"),
            ("containerd.io/gc.ref.content.l.0", "sha256:c"),
            ("containerd.io/gc.ref.content/x", "sha256:d"),
            ("containerd.io/gc.ref.contents", "sha256:no"),
            ("containerd.io/gc.ref.snapshot.overlayfs", "k1"),
            ("containerd.io/gc.ref.snapshot.native/second", "k2"),
            ("containerd.io/gc.ref.snapshot.", "no"),
            ("containerd.io/gc.root", "2020"),
            ("other", "sha256:no"),
        ];
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let expected: Vec<_> = ["a", "b", "c", "d"]
            .map(|digit| Resource::Content(format!("sha256:{digit}")))
            .into_iter()
            .chain([
                Resource::snapshot("native", "k2"),
                Resource::snapshot("overlayfs", "k1"),
            ])
            .collect();
        assert_eq!(of_labels(&labels).collect::<Vec<_>>(), expected);
    }
}
