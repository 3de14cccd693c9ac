use oci_spec::runtime::Spec;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::{Error, Result};

/// A spec as JSON that is the same for the same spec, whoever wrote it: keys in order, sets in order, indented by
/// tabs as runc does, a newline at the end.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) for a path in the spec that is not UTF-8, which JSON can't hold.
pub fn canonical_json(spec: &Spec) -> Result<Vec<u8>> {
    let value = ordered(serde_json::to_value(spec).map_err(Error::Serialize)?, &mut Vec::new());
    let mut json = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b"\t"));
    value.serialize(&mut serializer).map_err(Error::Serialize)?;
    json.push(b'\n');
    Ok(json)
}

/// Orders keys by itself: whether `serde_json` does is up to a feature that any crate of the program can switch.
fn ordered(value: Value, path: &mut Vec<String>) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let entries = entries.into_iter().map(|(key, value)| {
                path.push(key.clone());
                let value = ordered(value, path);
                path.pop();
                (key, value)
            });
            Value::Object(entries.collect())
        }
        Value::Array(mut items) => {
            if is_set(path) {
                items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
            Value::Array(items.into_iter().map(|item| ordered(item, path)).collect())
        }
        other => other,
    }
}

/// The capability sets, which are hash sets in memory and so in no order.
fn is_set(path: &[String]) -> bool {
    matches!(path, [process, capabilities, _] if process == "process" && capabilities == "capabilities")
}
