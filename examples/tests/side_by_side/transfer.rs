//! Images that the command line pushes, saves, loads and converts, as docker-registry and skopeo see them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use longshore_testing::skip;

use crate::images::{make_image, require};
use crate::tools::{docker_registry, sh};

fn run(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longshore"))
        .arg("--root")
        .arg(folder.join("root"))
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("longshore")
}

/// What it prints, on standard output and on standard error, when it works.
fn ok(folder: &Path, words: &[&str]) -> (String, String) {
    let output = run(folder, words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// The part of `NAME@DIGEST` after the `@`.
fn digest(line: &str) -> &str {
    line.rsplit_once('@').expect("a digest").1
}

#[test]
fn images_go_to_other_programs_and_come_back_the_same() {
    if let Err(why) = require() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    make_image(path);
    let (_server, host) = docker_registry(path);
    let skopeo = |words: &str| sh(&format!("cd {}; skopeo {words}", path.display()));
    let raw = |name: &str| {
        let script = format!("skopeo inspect --raw --tls-verify=false docker://{name} | sha256sum");
        format!("sha256:{}", sh(&script).split_whitespace().next().expect("a digest"))
    };
    let (pulled, _) = ok(path, &["pull", "oci:layout:test"]);
    let name = format!("{host}/team/app:1");
    ok(path, &["tag", "layout.localhost/layout:test", &name]);
    let (pushed, told) = ok(path, &["push", &name]);
    assert_eq!(pushed, format!("{name}@{}", digest(&pulled)));
    assert!(told.contains("pushing") && told.contains("0 B there already"), "{told}");
    assert_eq!(raw(&name), digest(&pulled), "skopeo reads the same manifest");
    skopeo(&format!("copy -q --src-tls-verify=false docker://{name} oci:back:1"));
    assert!(sh(&format!("cat {}/back/index.json", path.display())).contains(digest(&pulled)));
    let (_, told) = ok(path, &["push", &name]);
    assert!(told.starts_with("pushing") && told.contains("0 B sent"), "{told}");
    let other = format!("{host}/other/app:2");
    let (_, told) = ok(path, &["push", &name, &other]);
    assert!(!told.contains("0 B taken over"), "{told}");
    assert_eq!(raw(&other), digest(&pulled));

    // An archive that both of skopeo's readers of archives take.
    ok(path, &["save", "-o", "saved.tar", &name]);
    skopeo(&format!(
        "copy -q --preserve-digests oci-archive:saved.tar --dest-tls-verify=false docker://{host}/from/oci:1"
    ));
    assert_eq!(raw(&format!("{host}/from/oci:1")), digest(&pulled));
    skopeo(&format!(
        "copy -q docker-archive:saved.tar --dest-tls-verify=false docker://{host}/from/docker:1"
    ));
    // And what skopeo writes.
    skopeo(&format!(
        "copy -q --src-tls-verify=false docker://{name} docker-archive:theirs.tar:registry.example/theirs:1"
    ));
    sh(&format!("gzip -k {}/theirs.tar", path.display()));
    for archive in ["theirs.tar", "theirs.tar.gz"] {
        let (loaded, _) = ok(path, &["load", "-q", "-i", archive]);
        assert!(loaded.starts_with("registry.example/theirs:1@sha256:"), "{loaded}");
    }
    let shown = ["run", "--rm", "registry.example/theirs:1", "/bin/cat", "/etc/owned"];
    assert!(ok(path, &shown).0.contains("changed"));
    skopeo(&format!(
        "copy -q --src-tls-verify=false docker://{name} oci-archive:theirs.oci.tar:tagged"
    ));
    let (loaded, _) = ok(path, &["load", "-i", "theirs.oci.tar", "--name", "mine.example/app"]);
    assert_eq!(loaded, format!("mine.example/app:tagged@{}", digest(&pulled)));
    ok(path, &["save", "--format", "layout", "-o", "exported", &name]);
    skopeo("copy -q oci:exported:1 oci:again:1");

    let zstd = format!("{host}/team/app:zstd");
    let (converted, _) = ok(path, &["convert", "--compression", "zstd", &name, &zstd]);
    ok(path, &["push", &zstd]);
    assert_eq!(raw(&zstd), digest(&converted));
    let inspected = skopeo(&format!("inspect --raw --tls-verify=false docker://{zstd}"));
    assert!(inspected.contains("tar+zstd"), "{inspected}");
    let (listed, _) = ok(path, &["referrers", &name]);
    assert_eq!(listed.lines().count(), 1, "{listed}");

    for (words, part) in [
        (&["push", "nowhere.example/x"][..], "is not here"),
        (&["save", "--format", "layout", &name], "name it by -o"),
        (&["save", "-o", "x.tar", "nowhere.example/x"], "is not here"),
        (&["load", "-i", "layout/index.json"], "archive"),
        (&["load", "-i", "nothing.tar"], "opening nothing.tar"),
        (&["tag", &name, "Not A Name"], "is not an image reference"),
        (&["convert", &name, &zstd], "--compression"),
    ] {
        let output = run(path, words);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {told}");
        assert!(told.contains(part), "{words:?}: {told}");
    }
    assert!(!path.join("x.tar").exists() && !path.join("x.tar.part").exists());
}
