use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::*;
use crate::{CgroupVersion, NoFiles, Seccomp, SpecBuilder, canonical_json, runc_spec};

/// The field that a reader names who keeps the way while it reads.
fn oracle(json: &[u8]) -> Option<String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let error = serde_path_to_error::deserialize::<_, Spec>(&mut deserializer).err()?;
    Some(match error.path().to_string() {
        whole if whole == "." => "the whole document".to_owned(),
        field => field,
    })
}

/// Every document that differs from `value` in one place.
fn spoiled(value: &Value) -> Vec<Value> {
    let mut documents: Vec<Value> = [json!(-1.5), json!("?"), json!([[1]]), json!({"?": {}})].into();
    match value {
        Value::Array(list) => {
            for (index, element) in list.iter().enumerate() {
                for element in spoiled(element) {
                    let mut list = list.clone();
                    list[index] = element;
                    documents.push(Value::Array(list));
                }
            }
        }
        Value::Object(object) => {
            for (name, field) in object {
                let mut without = object.clone();
                without.remove(name);
                documents.push(Value::Object(without));
                for field in spoiled(field) {
                    let mut object = object.clone();
                    object.insert(name.clone(), field);
                    documents.push(Value::Object(object));
                }
            }
        }
        _ => {}
    }
    documents
}

#[test]
fn a_field_is_named_as_one_who_kept_the_way_names_it() {
    let built = SpecBuilder::without_image()
        .args(["sh", "-c", "true"])
        .seccomp(Seccomp::Unconfined)
        .memory(64 << 20)
        .annotation("a.\"b\"", "c");
    let mut seen = 0;
    for spec in [runc_spec(CgroupVersion::V2), built.build(&NoFiles).expect("a spec")] {
        let spec: Value = serde_json::from_slice(&canonical_json(&spec).expect("json")).expect("a document");
        for (number, document) in spoiled(&spec).into_iter().enumerate() {
            let text = match number % 2 {
                0 => serde_json::to_vec(&document),
                _ => serde_json::to_vec_pretty(&document),
            };
            let text = text.expect("json");
            // Of a list in place of an object, that one names what it took for a field.
            if document.is_array() {
                continue;
            }
            let ours = from_json::<Spec>(&text).err().map(|error| error.field);
            let theirs = oracle(&text);
            match (&ours, &theirs) {
                // Found by the type itself, after the list was read: the list is near enough.
                (Some(ours), Some(theirs)) if theirs.starts_with("process.capabilities.") => {
                    assert!(theirs.starts_with(ours.as_str()), "{ours} is not {theirs}");
                }
                _ => assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&text)),
            }
            seen += usize::from(ours.is_some());
        }
    }
    assert!(seen > 500, "{seen} were wrong");
}

#[test]
fn the_way_to_what_is_no_json() {
    for (json, wanted) in [
        (r#"{"root": }"#, "root: expected value"),
        (r#"{"root": {"path": "a", }}"#, "root: trailing comma"),
        (r#"{"a\"\u0062": [1, 2, {"c": nul}]}"#, "a\"b[2].c: expected ident"),
        (r#"{"root": {"path": "a"#, "root.path: EOF while parsing a string"),
        ("{\n\"root\":\n\n{\"path\": \"a\\q\"}}", "root.path: invalid escape"),
        ("[[[", "the whole document: EOF while parsing a list"),
        ("}", "the whole document: expected value"),
    ] {
        let error = from_json::<Value>(json.as_bytes()).expect_err("no JSON");
        assert_eq!(error.to_string(), wanted, "{json}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_survived(json in r#"[\[\]{}",:\\a1 \n]{0,40}"#) {
        let _ = from_json::<Value>(json.as_bytes());
    }
}
