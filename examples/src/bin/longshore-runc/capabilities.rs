//! Capabilities that have no name here: of a newer kernel, or mistyped. runc warns and goes on, and so does this program.

use oci_spec::runtime::Capability;
use serde_json::Value;

/// Takes the unknown names out of the sets of `process.capabilities`, and returns them, sorted, each once.
pub(crate) fn remove_unknown(sets: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for set in sets.as_object_mut().into_iter().flat_map(|sets| sets.values_mut()) {
        let Some(names) = set.as_array_mut() else { continue };
        names.retain(|name| {
            let is_known = !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !is_known {
                unknown.extend(name.as_str().map(str::to_owned));
            }
            is_known
        });
    }
    unknown.sort();
    unknown.dedup();
    unknown
}

/// runc's words.
pub(crate) fn warning(unknown: &[String]) -> String {
    format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_known_stays() {
        let mut sets = json!({ "bounding": ["CAP_KILL", "CAP_X"], "ambient": ["CAP_X", "KILLER"], "permitted": [7] });
        let unknown = remove_unknown(&mut sets);
        assert_eq!(
            sets,
            json!({ "bounding": ["CAP_KILL"], "ambient": [], "permitted": [7] })
        );
        assert_eq!(
            warning(&unknown),
            "ignoring unknown or unavailable capabilities: [CAP_X KILLER]"
        );
    }
}
