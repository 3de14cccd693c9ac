use oci_spec::runtime::{LinuxMemory, LinuxResources};
use serde_json::{Map, Value};

use super::super::host::Home;

/// All limits after a change, and those that are to be written for it.
pub(super) fn merge(
    present: Option<&LinuxResources>,
    change: &LinuxResources,
    memory: Option<Home>,
) -> (LinuxResources, LinuxResources) {
    let Some(present) = present else {
        return (change.clone(), change.clone());
    };
    let mut all = value(present);
    put(&mut all, value(change));
    let mut all: LinuxResources = serde_json::from_value(all).expect("both have this form, and so has their union");
    let mut written = change.clone();
    let Some(new) = change.memory() else {
        return (all, written);
    };
    let mut whole = all.memory().unwrap_or_default();
    let is_set = |amount: Option<i64>| amount.is_some_and(|amount| amount != 0);
    if new.limit() == Some(-1) && !is_set(new.swap()) {
        // Without a limit of memory there is none of memory and swap, unless it is asked for.
        whole.set_swap(None);
        all.set_memory(Some(whole));
    }
    // v2 has a limit of swap alone, the difference of the two.
    if memory == Some(Home::V2) && (is_set(new.limit()) || is_set(new.swap())) && is_set(whole.swap()) {
        let mut pair: LinuxMemory = *new;
        pair.set_limit(whole.limit()).set_swap(whole.swap());
        written.set_memory(Some(pair));
    }
    (all, written)
}

fn value(resources: &LinuxResources) -> Value {
    serde_json::to_value(resources).expect("its keys are strings")
}

/// Puts `change` over `present`: field by field, and in lists about things, thing by thing.
fn put(present: &mut Value, change: Value) {
    match (present, change) {
        (Value::Object(present), Value::Object(change)) => {
            for (key, change) in change {
                put(present.entry(key).or_insert(Value::Null), change);
            }
        }
        (Value::Array(present), Value::Array(change)) if change.iter().all(|new| thing(new).is_some()) => {
            for new in change {
                match present.iter_mut().rfind(|old| thing(old) == thing(&new)) {
                    Some(old) => put(old, new),
                    None => present.push(new),
                }
            }
        }
        (present, change) => *present = change,
    }
}

/// What an entry of a list is about: a device that is throttled, a size of pages, an interface. Device rules are about none: their order counts.
fn thing(entry: &Value) -> Option<Vec<&Value>> {
    let entry: &Map<String, Value> = entry.as_object()?;
    if entry.contains_key("allow") {
        return None;
    }
    let keys: &[&str] = ["pageSize", "name"]
        .iter()
        .position(|key| entry.contains_key(*key))
        .map_or(&["major", "minor"], |at| [&["pageSize"][..], &["name"]][at]);
    keys.iter().map(|key| entry.get(*key)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn both(present: Value, change: Value, home: Home) -> (Value, Value) {
        let read = |json| serde_json::from_value::<LinuxResources>(json).expect("resources");
        let (all, written) = merge(Some(&read(present)), &read(change), Some(home));
        (value(&all), value(&written))
    }

    #[test]
    fn what_a_change_leaves_out_stays() {
        let present = json!({ "cpu": { "shares": 5, "quota": 7 }, "pids": { "limit": 3 }, "unified": { "a.b": "1" },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }] });
        let change = json!({ "cpu": { "quota": 9 }, "unified": { "c.d": "2" },
            "hugepageLimits": [{ "pageSize": "1GB", "limit": 2 }, { "pageSize": "2MB", "limit": 4 }] });
        let (all, written) = both(present, change.clone(), Home::V1);
        let expected = json!({ "cpu": { "shares": 5, "quota": 9 }, "pids": { "limit": 3 }, "unified": { "a.b": "1", "c.d": "2" },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 }, { "pageSize": "1GB", "limit": 2 }] });
        assert_eq!(all, expected);
        assert_eq!(written, change);
    }

    #[test]
    fn a_device_has_one_rate_and_rules_keep_their_order() {
        let rate = |minor, rate| json!({ "major": 8, "minor": minor, "rate": rate });
        let rule = |allow| json!({ "allow": allow, "type": "c", "major": 1, "minor": 3, "access": "rwm" });
        let present =
            json!({ "blockIO": { "throttleReadBpsDevice": [rate(0, 1), rate(16, 2)] }, "devices": [rule(true)] });
        let change =
            json!({ "blockIO": { "throttleReadBpsDevice": [rate(16, 5)] }, "devices": [rule(false), rule(true)] });
        let (all, _) = both(present, change.clone(), Home::V1);
        assert_eq!(
            all["blockIO"]["throttleReadBpsDevice"],
            json!([rate(0, 1), rate(16, 5)])
        );
        assert_eq!(all["devices"], change["devices"]);
    }

    #[test]
    fn v2_is_told_memory_and_swap_together() {
        let present = json!({ "memory": { "limit": 100, "swap": 150, "reservation": 9 } });
        let written = |change: Value, home| both(present.clone(), change, home).1;
        let swap = json!({ "memory": { "swap": 300 } });
        assert_eq!(written(swap.clone(), Home::V1), swap);
        assert_eq!(
            written(swap, Home::V2),
            json!({ "memory": { "limit": 100, "swap": 300 } })
        );
        let limit = json!({ "memory": { "limit": 120 } });
        assert_eq!(
            written(limit, Home::V2),
            json!({ "memory": { "limit": 120, "swap": 150 } })
        );
        let other = json!({ "memory": { "reservation": 8 } });
        assert_eq!(written(other.clone(), Home::V2), other);
        let none = json!({ "memory": { "limit": -1 } });
        let (all, written) = both(present.clone(), none.clone(), Home::V2);
        assert_eq!(
            (all, written),
            (json!({ "memory": { "limit": -1, "reservation": 9 } }), none)
        );
    }
}
