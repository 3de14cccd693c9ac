//! Keys and records as bytes. The order of encoded keys is that of [`Key`]: namespace, kind, id.

use crate::{Key, Kind, Record};

/// The number of a kind in the file. Never change one.
fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Namespace => 1,
        Kind::Image => 2,
        Kind::Container => 3,
        Kind::Lease => 4,
        Kind::Content => 5,
        Kind::Snapshot => 6,
        Kind::Removal => 7,
    }
}

/// The bytes before the ids of one kind in one namespace. A namespace has no zero byte, so the zero ends it and sorts before any longer name.
pub(crate) fn prefix(namespace: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = after_namespace(namespace, 0);
    bytes.push(number(kind));
    bytes
}

/// The bytes after all of a namespace: where the next one starts.
pub(crate) fn end_of(namespace: &str) -> Vec<u8> {
    after_namespace(namespace, 1)
}

fn after_namespace(namespace: &str, end: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(namespace.len() + 2);
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.push(end);
    bytes
}

/// The bytes after all ids of one kind in one namespace.
pub(crate) fn end_of_kind(namespace: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = after_namespace(namespace, 0);
    bytes.push(number(kind) + 1);
    bytes
}

pub(crate) fn key(key: &Key) -> Vec<u8> {
    let mut bytes = prefix(&key.namespace, key.kind);
    bytes.extend_from_slice(key.id.as_bytes());
    bytes
}

/// The namespace of an encoded key.
pub(crate) fn namespace_of(key: &[u8]) -> Option<&str> {
    let end = key.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&key[..end]).ok()
}

pub(crate) fn record(record: &Record) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(record)
}

pub(crate) fn read_record(bytes: &[u8]) -> serde_json::Result<Record> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_bytes_is_the_order_of_keys() {
        let mut keys = Vec::new();
        for namespace in ["", "a", "a-b", "a.b", "ab", "b"] {
            for kind in [
                Kind::Namespace,
                Kind::Image,
                Kind::Container,
                Kind::Lease,
                Kind::Content,
                Kind::Snapshot,
                Kind::Removal,
            ] {
                keys.extend(["", "a", "a/b", "b"].map(|id| Key::new(namespace, kind, id)));
            }
        }
        keys.sort();
        let encoded: Vec<_> = keys.iter().map(key).collect();
        assert!(encoded.is_sorted());
        for (plain, bytes) in keys.iter().zip(&encoded) {
            assert_eq!(namespace_of(bytes), Some(plain.namespace.as_str()));
            assert!(*bytes >= prefix(&plain.namespace, plain.kind));
            assert!(*bytes < end_of_kind(&plain.namespace, plain.kind) && *bytes < end_of(&plain.namespace));
        }
    }
}
