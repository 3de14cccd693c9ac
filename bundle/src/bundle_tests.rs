use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::{CgroupVersion, ErrorKind, NoFiles, Seccomp, SpecBuilder, canonical_json, runc_spec};

fn bundle_of(json: &str) -> (tempfile::TempDir, Result<Bundle>) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(CONFIG), json).expect("a file");
    let loaded = Bundle::load(directory.path());
    (directory, loaded)
}

fn message(json: &str) -> String {
    let (directory, loaded) = bundle_of(json);
    let error = loaded.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    error
        .to_string()
        .replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn what_is_written_is_read() {
    let parent = tempfile::tempdir().expect("a directory");
    let spec = SpecBuilder::without_image()
        .args(["true"])
        .hostname("h")
        .build(&NoFiles)
        .expect("a spec");
    let bundle = Bundle::create(parent.path().join("a/b"), &spec).expect("a bundle");
    let read = Bundle::load(bundle.directory()).expect("a bundle");
    assert_eq!(read, bundle);
    assert_eq!(read.into_spec(), spec);
    let mode = |name: &str| {
        fs::metadata(bundle.directory().join(name))
            .expect("a file")
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode("."), 0o711);
    assert_eq!(mode(CONFIG), 0o600);
    assert!(bundle.directory().join("rootfs").is_dir());
    let mut names: Vec<_> = fs::read_dir(bundle.directory())
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, [CONFIG, "rootfs"]);
}

#[test]
fn a_config_is_replaced_whole() {
    let parent = tempfile::tempdir().expect("a directory");
    let spec = runc_spec(CgroupVersion::V1);
    let mut bundle = Bundle::create(parent.path(), &spec).expect("a bundle");
    let path = parent.path().join(CONFIG);
    let before = fs::metadata(&path).expect("a file").ino();
    let other = SpecBuilder::without_image()
        .args(["true"])
        .build(&NoFiles)
        .expect("a spec");
    bundle.replace(other.clone()).expect("replaced");
    assert_ne!(
        fs::metadata(&path).expect("a file").ino(),
        before,
        "it must not be written in place"
    );
    assert_eq!(Bundle::load(parent.path()).expect("a bundle").spec(), &other);
}

#[test]
fn a_root_elsewhere_is_not_made() {
    for root in ["/srv/longshore-test-root", "../sideways", "a/../../b"] {
        let parent = tempfile::tempdir().expect("a directory");
        let spec = SpecBuilder::without_image()
            .args(["true"])
            .root_path(root)
            .build(&NoFiles)
            .expect("a spec");
        let bundle = Bundle::create(parent.path().join("bundle"), &spec).expect("a bundle");
        assert_eq!(
            fs::read_dir(bundle.directory()).expect("a directory").count(),
            1,
            "{root}"
        );
        assert_eq!(fs::read_dir(parent.path()).expect("a directory").count(), 1, "{root}");
    }
}

/// The same spec gives the same bytes, though its maps and sets have no order.
#[test]
fn canonical_is_canonical() {
    let builder = SpecBuilder::without_image()
        .args(["true"])
        .annotation("b", "1")
        .annotation("a", "2")
        .annotation("c", "3");
    let first = canonical_json(&builder.build(&NoFiles).expect("a spec")).expect("json");
    for _ in 0..20 {
        assert_eq!(
            canonical_json(&builder.build(&NoFiles).expect("a spec")).expect("json"),
            first
        );
    }
    let text = String::from_utf8(first).expect("text");
    assert!(
        text.starts_with(
            "{\n\t\"annotations\": {\n\t\t\"a\": \"2\",\n\t\t\"b\": \"1\",\n\t\t\"c\": \"3\"\n\t},\n\t\"linux\""
        ),
        "{text}"
    );
    assert!(text.ends_with("\n}\n"));
    let again: Spec = serde_json::from_str(&text).expect("a spec");
    assert_eq!(
        String::from_utf8(canonical_json(&again).expect("json")).expect("text"),
        text
    );
}

#[test]
fn order_that_has_a_meaning_is_kept() {
    let builder = SpecBuilder::without_image()
        .args(["z", "a", "m"])
        .seccomp(Seccomp::Unconfined)
        .env("Z=1")
        .env("A=2");
    let json = canonical_json(&builder.build(&NoFiles).expect("a spec")).expect("json");
    let spec: Spec = serde_json::from_slice(&json).expect("a spec");
    assert_eq!(spec, builder.build(&NoFiles).expect("a spec"));
}

#[test]
fn an_unknown_value_names_its_field_and_line() {
    let json = "{\n  \"ociVersion\": \"1.0.2\",\n  \"linux\": {\n    \"seccomp\": {\n      \"defaultAction\": \"SCMP_ACT_MAYBE\"\n    }\n  }\n}";
    let text = message(json);
    assert!(text.starts_with("config.json:5:"), "{text}");
    assert!(
        text.contains(
            ": linux.seccomp.defaultAction: unknown variant `SCMP_ACT_MAYBE`, expected one of `SCMP_ACT_KILL`"
        ),
        "{text}"
    );
    assert!(!text.contains(" at line "), "{text}");
}

#[test]
fn messages_for_bad_configs() {
    let process =
        |field: &str| format!(r#"{{"ociVersion": "1.0.2", "process": {{"cwd": "/", "user": {{}}, {field}}}}}"#);
    let cases = [
        (
            process(r#""args": "sh""#),
            "process.args: invalid type: string \"sh\", expected a sequence",
        ),
        (
            r#"{"ociVersion": "1.0.2", "process": {"cwd": "/", "user": {"uid": -1}}}"#.to_owned(),
            "process.user.uid: invalid value: integer `-1`",
        ),
        (
            process(r#""capabilities": {"bounding": ["CAP_CHOWN", "CAP_FLY", "CAP_KILL"]}"#),
            "process.capabilities.bounding[1]: ",
        ),
        (
            process(r#""rlimits": [{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]"#),
            "process.rlimits[0].type: unknown variant `RLIMIT_FUN`",
        ),
        (
            r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, {"type": "dream"}]}}"#.to_owned(),
            "linux.namespaces[1].type: unknown variant `dream`",
        ),
        (
            r#"{"ociVersion": "1.0.2", "mounts": [{"type": "proc"}]}"#.to_owned(),
            "mounts[0]: missing field `destination`",
        ),
        (" []".to_owned(), "config.json: it is a list, not an object"),
        ("{".to_owned(), "EOF while parsing"),
        ("".to_owned(), "the whole document: EOF while parsing a value"),
        (
            r#"{"ociVersion": "1.0.2"} trailing"#.to_owned(),
            "end of the file: trailing characters",
        ),
        (
            format!(r#"{{"annotations": {}"#, "[".repeat(100_000)),
            "annotations: invalid type: sequence",
        ),
        (
            format!(r#"{{"unknown": {}"#, "[".repeat(100_000)),
            "unknown: EOF while parsing a list",
        ),
    ];
    for (json, wanted) in cases {
        let text = message(&json);
        assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let (_directory, loaded) =
        bundle_of(r#"{"ociVersion": "1.0.2", "fromTheFuture": [1, 2], "linux": {"alsoNew": {}}}"#);
    assert!(loaded.expect("a bundle").spec().linux().is_some());
}

#[test]
fn what_is_no_config_at_all() {
    let empty = tempfile::tempdir().expect("a directory");
    assert_eq!(
        Bundle::load(empty.path()).expect_err("absent").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(Bundle::load("/nope").expect_err("absent").kind(), ErrorKind::NotFound);
    let path = empty.path().join(CONFIG);
    let status = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .expect("mkfifo");
    assert!(status.success());
    assert_eq!(
        Bundle::load(empty.path()).expect_err("a pipe").kind(),
        ErrorKind::Invalid
    );
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a directory");
    assert_eq!(
        Bundle::load(empty.path()).expect_err("a directory").kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn a_config_has_a_size_it_may_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = File::create(directory.path().join(CONFIG)).expect("a file");
    file.set_len(CONFIG_LIMIT + 1).expect("a long file");
    let error = Bundle::load(directory.path()).expect_err("too long");
    assert!(error.to_string().contains("longer than 16777216 bytes"), "{error}");
}

#[test]
fn what_can_not_be_written_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join(CONFIG)).expect("a directory in the way");
    fs::write(directory.path().join(CONFIG).join("x"), "").expect("a file");
    Bundle::create(directory.path(), &runc_spec(CgroupVersion::V1)).expect_err("in the way");
    let names: Vec<_> = fs::read_dir(directory.path())
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    assert!(names.iter().all(|name| name == CONFIG || name == "rootfs"), "{names:?}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(json: Vec<u8>) {
        let _ = parse(Path::new(CONFIG), &json);
    }
}
