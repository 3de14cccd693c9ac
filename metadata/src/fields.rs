//! The fields of records by name: for filters in containerd's syntax, and for updates that change some of them.

use std::borrow::Cow;

use longshore_filter::{Fields, joined};

use crate::{Container, Entry, Error, Image, Labels, Lease, Record, Recorded, Result, Value};

/// By containerd's names: of an image `name`, `target.digest` and `target.mediatype`; of a container `id`, `image` and `snapshotter`; of a lease `id`; of a namespace `name`;
/// of a blob `digest`; of a snapshot `name`; of each `labels.<label>`.
impl Fields for Record {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        if let ["labels", label @ ..] = path {
            return self.labels.get(&joined(label)).map(|value| value.as_str().into());
        }
        let id = || Some(Cow::Borrowed(self.key.id.as_str()));
        match (&self.value, path) {
            (Value::Image(_) | Value::Namespace, ["name"]) => id(),
            (Value::Image(image), ["target", "digest"]) => Some(image.target.digest().to_string().into()),
            (Value::Image(image), ["target", "mediatype"]) => Some(image.target.media_type().to_string().into()),
            (Value::Container(_) | Value::Lease(_), ["id"]) => id(),
            (Value::Container(container), ["image"]) => Some(container.image.as_str().into()),
            (Value::Container(container), ["snapshotter"]) => Some(container.snapshotter.as_str().into()),
            (Value::Labels, ["digest"]) if self.key.kind == crate::Kind::Content => id(),
            (Value::Labels, ["name"]) if self.key.kind == crate::Kind::Snapshot => {
                self.key.id.split_once('/').map(|(_, key)| key.into())
            }
            _ => None,
        }
    }
}

/// A value of which single fields can be changed.
pub trait Masked: Recorded {
    /// Takes a field over from another value; `false` when there is none of that name that may change.
    fn take(&mut self, field: &str, from: &Self) -> bool;
}

impl Masked for Image {
    fn take(&mut self, field: &str, from: &Self) -> bool {
        match field {
            "target" => self.target = from.target.clone(),
            _ => return false,
        }
        true
    }
}

impl Masked for Container {
    /// `image` (with its digest), `snapshot` (with its snapshotter), `spec`, `extensions`, `extensions.<name>`.
    fn take(&mut self, field: &str, from: &Self) -> bool {
        match field.split_once('.').unwrap_or((field, "")) {
            ("image", "") => {
                self.image = from.image.clone();
                self.image_digest = from.image_digest.clone();
            }
            ("snapshot", "") => {
                self.snapshotter = from.snapshotter.clone();
                self.snapshot = from.snapshot.clone();
            }
            ("spec", "") => self.spec = from.spec.clone(),
            ("extensions", "") => self.extensions = from.extensions.clone(),
            ("extensions", name) => match from.extensions.get(name) {
                Some(value) => drop(self.extensions.insert(name.to_owned(), value.clone())),
                None => drop(self.extensions.remove(name)),
            },
            _ => return false,
        }
        true
    }
}

impl Masked for Lease {
    fn take(&mut self, field: &str, from: &Self) -> bool {
        match field {
            "expires" => self.expires = from.expires,
            "resources" => self.resources = from.resources.clone(),
            _ => return false,
        }
        true
    }
}

/// Applies the named fields of one record to another: `labels`, `labels.<label>` (removed when it is not there), or one of the value's.
pub(crate) fn take<T: Masked>(labels: &mut Labels, value: &mut T, from: &Entry<T>, fields: &[&str]) -> Result<()> {
    for field in fields {
        if *field == "labels" {
            *labels = from.labels.clone();
        } else if let Some(label) = field.strip_prefix("labels.") {
            match from.labels.get(label) {
                Some(value) => drop(labels.insert(label.to_owned(), value.clone())),
                None => drop(labels.remove(label)),
            }
        } else if !value.take(field, &from.value) {
            return Err(Error::Invalid {
                what: "field to update",
                value: (*field).to_owned(),
                reason: format!("{:?} records have no such field that may change", T::KIND),
            });
        }
    }
    Ok(())
}
