//! Layers made out of snapshots: applied to the parent again they give the snapshot, with our unpacker and with others'.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use common::{Tree, skip_unless_root};
use longshore_linux::Mount;
use longshore_snapshot::conformance::Mounted;
use longshore_snapshot::{
    ApplyOptions, ChangeKind, DiffOptions, Diffed, ErrorKind, Labels, NativeSnapshotter, OverlaySnapshotter, Ownership,
    Snapshotter, apply_layer, changes, diff_layer, diff_snapshot, snapshot_changes,
};
use longshore_testing::{require_tool, skip};
use proptest::prelude::*;

/// Both snapshotters in a folder.
struct Site {
    overlay: OverlaySnapshotter,
    native: NativeSnapshotter,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            overlay: OverlaySnapshotter::open(folder.path().join("overlay")).await.unwrap(),
            native: NativeSnapshotter::open(folder.path().join("native")).await.unwrap(),
            folder,
        }
    }

    fn both(&self) -> [&dyn Snapshotter; 2] {
        [&self.overlay, &self.native]
    }
}

fn bash(script: &str, directory: &Path) {
    let output = Command::new("bash")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the script in a snapshot on `parent`, and commits it when it is given a name.
async fn change(s: &dyn Snapshotter, key: &str, parent: Option<&str>, script: &str, name: Option<&str>) {
    let mounts = s.prepare(key, parent, Labels::new()).await.unwrap();
    let mounted = Mounted::new(&mounts);
    bash(script, &mounted.path(""));
    drop(mounted);
    if let Some(name) = name {
        s.commit(key, name, Labels::new()).await.unwrap();
    }
}

async fn diff(s: &dyn Snapshotter, key: &str) -> (Diffed, Vec<u8>) {
    diff_snapshot(s, key, Vec::new(), &DiffOptions::default())
        .await
        .unwrap()
}

/// What a snapshot shows. The root's time changes whenever a snapshot is made.
async fn shown(s: &dyn Snapshotter, key: &str) -> Tree {
    let mounted = Mounted::new(&s.mounts(key).await.unwrap());
    Tree::read(&mounted.path("")).without_mtime(str::is_empty)
}

/// What a snapshot on `parent` shows with the layer in it.
async fn applied(s: &dyn Snapshotter, key: &str, parent: Option<&str>, layer: &[u8]) -> Tree {
    let mounts = s.prepare(key, parent, Labels::new()).await.unwrap();
    apply_layer(&mounts, layer, &ApplyOptions::default()).unwrap();
    shown(s, key).await
}

/// Link counts apart: overlay shows those of the layer that a file is in.
fn without_links(mut tree: Tree) -> Tree {
    for line in tree.0.values_mut() {
        let words = line
            .split(' ')
            .filter(|word| !word.starts_with("links=") && !word.starts_with("first="));
        *line = words.collect::<Vec<_>>().join(" ");
    }
    tree
}

const BASE: &str = r#"
    umask 022
    mkdir -p etc usr/lib/deep/er opt/app keep
    echo root >etc/passwd; echo old >etc/old; echo same >etc/same; echo gone >usr/lib/gone
    echo deep >usr/lib/deep/er/file; echo a >opt/app/a; echo b >opt/app/b; ln -s a opt/app/link
    echo linked >keep/one; ln keep/one keep/two; ln keep/one keep/three
    mkdir dir-to-file; echo x >dir-to-file/x; echo file >file-to-dir; mkdir replaced; echo y >replaced/y
    setfattr -n user.note -v before etc/same
    find . -depth -exec touch -h -d '2020-01-02 03:04:05.678 UTC' {} +
"#;

const CHANGES: &str = r#"
    umask 022
    echo more >>etc/passwd; rm etc/old usr/lib/gone; chmod 600 etc/same; setfattr -n user.note -v after etc/same
    rm -r usr/lib/deep; rm -r replaced; mkdir replaced; echo z >replaced/z
    rm -r dir-to-file; echo now >dir-to-file; rm file-to-dir; mkdir -m 2750 file-to-dir; echo in >file-to-dir/in
    ln keep/two keep/four
    mkdir -p new/empty "new/$(printf 'n%.0s' $(seq 240))/$(printf 'm%.0s' $(seq 240))"
    mknod new/null c 1 3; mknod new/loop b 7 300; mkfifo -m 640 new/pipe; chown 3000000:12 new/pipe
    ln -s "$(printf 'x%.0s' $(seq 300))" new/long-link; ln -s /etc/passwd new/link; chown -h 5:6 new/link
    cp /bin/true new/capable; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 new/capable
    setfattr -n trusted.note -v t new; setfattr -n user.empty new/capable
    truncate -s 4G new/sparse; printf data | dd of=new/sparse bs=1 seek=1000000000 conv=notrunc status=none
    truncate -s 2M new/hole; truncate -s 3M new/end; printf end | dd of=new/end bs=1 seek=3145725 conv=notrunc status=none
    touch "new/$(printf 'latin-\xe9')" 'new/new
line' new/suid; chmod 6755 new/suid; touch new/.whiteout new/wh.
    touch -d '1969-12-31 23:59:58.25 UTC' new/old; touch -d '2100-01-02 03:04:05.123456789 UTC' new/future
    d=new; for i in $(seq 15); do d="$d/$(printf 'p%.0s' $(seq 240))"; done; mkdir -p "$d"; echo far >"$d/far"
    chmod 1777 .
"#;

#[tokio::test]
async fn a_layer_applied_to_the_parent_gives_the_snapshot() {
    if skip_unless_root() {
        return;
    }
    let site = Site::new().await;
    let mut layers = Vec::new();
    for s in site.both() {
        change(s, "making", None, BASE, Some("base")).await;
        change(s, "changed", Some("base"), CHANGES, None).await;
        let (made, layer) = diff(s, "changed").await;
        assert_eq!(made.size, layer.len() as u64);
        assert_eq!(made.diff_id, sha256(&layer));
        assert_eq!((made.left_out.sockets, made.left_out.names), (0, 0));
        assert!(
            layer.len() < 1 << 20,
            "{}: holes are not written ({} bytes)",
            s.name(),
            layer.len()
        );
        assert_eq!(diff(s, "changed").await.1, layer, "the same tree gives the same bytes");

        let expected = shown(s, "changed").await;
        expected.assert_same(&applied(s, "again", Some("base"), &layer).await, s.name());

        // The whole base as a layer, and the top one committed.
        let (_, whole) = diff(s, "base").await;
        let mounts = s.view("base-view", Some("base"), Labels::new()).await.unwrap();
        let base = Tree::read(&Mounted::new(&mounts).path("")).without_mtime(str::is_empty);
        base.assert_same(&applied(s, "base-again", None, &whole).await, "the base");
        s.commit("changed", "top", Labels::new()).await.unwrap();
        assert_eq!(diff(s, "top").await.1, layer, "committing changes nothing");
        assert!(
            s.walk()
                .await
                .unwrap()
                .iter()
                .all(|info| !info.key.starts_with("diff-"))
        );
        layers.push((layer, expected));
    }
    // A layer made by one is the other's snapshot as well.
    for (s, (layer, expected)) in site.both().into_iter().zip(layers.iter().rev()) {
        let tree = applied(s, "crossed", Some("base"), layer).await;
        without_links(expected.clone()).assert_same(&without_links(tree), "crossed");
    }
}

fn sha256(bytes: &[u8]) -> oci_spec::image::Digest {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().unwrap()
}

#[tokio::test]
async fn changes_are_told_as_docker_tells_them() {
    if skip_unless_root() {
        return;
    }
    let site = Site::new().await;
    let expected = "\
C /dir-to-file
C /etc
D /etc/old
C /etc/passwd
C /etc/same
C /file-to-dir
A /file-to-dir/in
C /keep
A /keep/four
C /keep/one
C /keep/three
C /keep/two
A /new
A /new/x\\u{7}\\xff
C /replaced
D /replaced/y
A /replaced/z
C /usr
C /usr/lib
D /usr/lib/deep
D /usr/lib/gone";
    for s in site.both() {
        change(s, "making", None, BASE, Some("base")).await;
        change(s, "same", Some("base"), "true", None).await;
        assert_eq!(snapshot_changes(s, "same").await.unwrap(), []);
        assert_eq!(diff(s, "same").await.0.entries, 0, "nothing changed");
        let script = CHANGES.split_once("mkdir -p new").unwrap().0;
        let script = format!("{script}\nmkdir new; touch \"new/$(printf 'x\\a\\xff')\"");
        change(s, "changed", Some("base"), &script, None).await;
        let lines: Vec<String> = snapshot_changes(s, "changed")
            .await
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        let mut expected: Vec<&str> = expected.lines().collect();
        if s.name() == "overlay" {
            // The lower layer's other names are not in the upper directory: what the container sees is another file by now.
            expected.retain(|line| !["C /keep/one", "C /keep/three"].contains(line));
        }
        assert_eq!(lines, expected, "{}", s.name());
    }
}

#[tokio::test]
async fn what_no_layer_can_hold_is_left_out_and_told() {
    if skip_unless_root() {
        return;
    }
    let site = Site::new().await;
    for s in site.both() {
        change(s, "making", None, "mkdir d; echo a >d/a; echo s >socket", Some("base")).await;
        let mounts = s.prepare("changed", Some("base"), Labels::new()).await.unwrap();
        let mounted = Mounted::new(&mounts);
        let script = "touch .wh.d d/.wh..wh..opq d/.wh. 'd/.wh.a'; rm socket; touch fine";
        bash(script, &mounted.path(""));
        let _socket = std::os::unix::net::UnixListener::bind(mounted.path("socket")).unwrap();
        drop(mounted);
        let (made, layer) = diff(s, "changed").await;
        assert_eq!((made.left_out.names, made.left_out.sockets), (4, 1), "{}", s.name());
        let tree = applied(s, "again", Some("base"), &layer).await;
        assert_eq!(tree.names(), ["", "d", "d/a", "fine"], "nothing else is hidden");
    }
    // In a plain directory a device 0:0 is a file like others, until overlay sees it.
    let plain = site.folder.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    bash(
        "mknod zero c 0 0; touch x; setfattr -n trusted.overlay.opaque -v y .",
        &plain,
    );
    let mut layer = Vec::new();
    let made = diff_layer(&[], &[Mount::bind(&plain)], &mut layer, &DiffOptions::default()).unwrap();
    assert_eq!((made.left_out.devices, made.entries), (1, 2));
    assert!(!layer.windows(7).any(|bytes| bytes == b"overlay"));
}

#[test]
fn owners_and_times_can_be_leveled() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "content").unwrap();
    let epoch = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let options = DiffOptions::default().ownership(Ownership::Caller).latest(epoch);
    let layers = [(); 2].map(|()| {
        std::fs::File::open(folder.path().join("file"))
            .unwrap()
            .set_modified(std::time::SystemTime::now())
            .unwrap();
        let mut layer = Vec::new();
        diff_layer(&[], &[Mount::bind(folder.path())], &mut layer, &options).unwrap();
        layer
    });
    assert_eq!(layers[0], layers[1]);
    let mut archive = tar::Archive::new(&layers[0][..]);
    for entry in archive.entries().unwrap() {
        let header = entry.unwrap().header().clone();
        assert_eq!(
            (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
            (0, 0, 1_000_000_000)
        );
    }
}

/// What a container could leave behind to make the reader outside of it read something else, or hang.
#[tokio::test]
async fn a_tree_made_to_mislead_misleads_nobody() {
    if skip_unless_root() {
        return;
    }
    let site = Site::new().await;
    let secret = site.folder.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "SECRET").unwrap();
    for s in site.both() {
        change(
            s,
            "making",
            None,
            "mkdir -p d/e; echo x >d/e/key; mkfifo fifo",
            Some("base"),
        )
        .await;
        let script = format!(
            "rm -r d; ln -s {secret} d; ln -s {secret}/key file; ln -s /proc/self/cwd cwd; mkdir e; ln -s ../../../../../.. e/up
            mkfifo pipe; mknod terminal c 5 0; mknod mem c 1 1; rm fifo; ln -s pipe fifo",
            secret = secret.display()
        );
        change(s, "changed", Some("base"), &script, None).await;
        let (_, layer) = diff(s, "changed").await;
        assert!(!layer.windows(6).any(|bytes| bytes == b"SECRET"));
        let tree = applied(s, "again", Some("base"), &layer).await;
        shown(s, "changed").await.assert_same(&tree, s.name());

        // A tree may be deeper than any path can name.
        let deep = r#"d=$(printf 'd%.0s' $(seq 250)); for i in $(seq 20); do mkdir $d; cd $d; done; echo x >file"#;
        change(s, "deep", Some("base"), &format!("mkdir z; cd z; {deep}"), None).await;
        let error = diff_snapshot(s, "deep", Vec::new(), &DiffOptions::default())
            .await
            .unwrap_err();
        assert!(
            error.kind() == ErrorKind::Unsupported && error.to_string().contains("too long"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_overlay_did_not_copy_is_refused() {
    if skip_unless_root() {
        return;
    }
    let site = Site::new().await;
    let s = &site.overlay;
    change(s, "making", None, "mkdir d; echo x >d/x; echo y >y", Some("base")).await;
    for (option, script, word) in [
        ("redirect_dir=on", "mv d e", "redirect_dir"),
        ("metacopy=on", "chmod 600 y", "metacopy"),
    ] {
        let mut mounts = s.prepare(word, Some("base"), Labels::new()).await.unwrap();
        mounts[0].options.insert(0, option.to_owned());
        let mounted = Mounted::new(&mounts);
        bash(script, &mounted.path(""));
        drop(mounted);
        let error = changes(&[], &mounts).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Unsupported && error.to_string().contains(word),
            "{error}"
        );
    }
    // In the namespace that the mount does not use, the same attribute is anybody's.
    let script = "mkdir e; setfattr -n user.overlay.redirect -v /d e; setfattr -n user.overlay.opaque -v y e";
    change(s, "user", Some("base"), script, None).await;
    assert_eq!(snapshot_changes(s, "user").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_writer_that_fails_is_told_apart() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mounts = [Mount::bind(folder.path())];
    let error = diff_layer(&[], &mounts, Full, &DiffOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let two = [Mount::bind("/a"), Mount::bind("/b")];
    assert_eq!(changes(&[], &two).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// The tree that umoci unpacks from an image of these layers.
fn umoci(folder: &Path, name: &str, layers: &[&[u8]]) -> Tree {
    let directory = folder.join(name);
    std::fs::create_dir(&directory).unwrap();
    let mut script = "umoci init --layout i; umoci new --image i:t".to_owned();
    for (n, layer) in layers.iter().enumerate() {
        std::fs::write(directory.join(format!("{n}.tar")), layer).unwrap();
        script += &format!("\numoci raw add-layer --image i:t {n}.tar");
    }
    script += "\numoci unpack --image i:t bundle";
    bash(&script, &directory);
    Tree::read(&directory.join("bundle/rootfs")).without_mtime(str::is_empty)
}

/// The tree that podman mounts for an image of these layers, with its driver `vfs`.
fn podman(folder: &Path, name: &str) -> Tree {
    let directory = folder.join(name);
    let podman = "podman --root $PWD/s --runroot $PWD/r --storage-driver vfs";
    let script = format!(
        "skopeo copy -q oci:i:t \"containers-storage:[vfs@$PWD/s+$PWD/r]localhost/x:t\"; {podman} image mount localhost/x:t >at"
    );
    bash(&script, &directory);
    let at = std::fs::read_to_string(directory.join("at")).unwrap();
    let tree = Tree::read(&PathBuf::from(at.trim())).without_mtime(str::is_empty);
    bash(
        &format!("{podman} image unmount -a >/dev/null; {podman} rmi -a -f >/dev/null"),
        &directory,
    );
    tree
}

#[tokio::test]
async fn umoci_unpacks_our_layers_to_the_same_tree() {
    if skip_unless_root() {
        return;
    }
    if let Err(why) = require_tool("umoci") {
        return skip(&why);
    }
    let site = Site::new().await;
    // They write holes as zeros, and take an attribute without a value for none.
    let changes = CHANGES.replace("4G", "64M").replace("seek=1000000000", "seek=10000000");
    let changes = changes.replace("setfattr -n user.empty new/capable", "");
    for s in site.both() {
        change(s, "making", None, BASE, Some("base")).await;
        change(s, "changed", Some("base"), &changes, None).await;
        let folder = format!("image-{}", s.name());
        let (base, top) = (diff(s, "base").await.1, diff(s, "changed").await.1);
        let expected = without_links(shown(s, "changed").await);
        let theirs = umoci(site.folder.path(), &folder, &[&base, &top]);
        expected.assert_same(&without_links(theirs), &format!("umoci, {}", s.name()));
        if let Err(why) = require_tool("podman").and_then(|_| require_tool("skopeo")) {
            skip(&why);
            continue;
        }
        let theirs = podman(site.folder.path(), &folder);
        // It sets no time before 1970.
        let comparable = |tree: Tree| without_links(tree).without_mtime(|path| path == "new/old");
        comparable(expected).assert_same(&comparable(theirs), &format!("podman, {}", s.name()));
    }
}

/// One thing that a container does.
fn any_deed() -> impl Strategy<Value = (u8, String, String)> {
    let part = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let path = move || prop::collection::vec(part(), 1..4).prop_map(|parts| parts.join("/"));
    (0u8..12, path(), path())
}

/// What fails, fails: the next deed goes on.
fn script(deeds: &[(u8, String, String)]) -> String {
    let mut text = "set +e; exec 2>/dev/null; umask 022\n".to_owned();
    for (n, (kind, path, other)) in deeds.iter().enumerate() {
        text += &match kind {
            // No FIFO: what opens one waits for the other side, and for ever.
            0 | 1 => format!("mkdir -p $(dirname {path}); echo {n} >{path}"),
            2 => format!("mkdir -p {path}"),
            3 => format!("rm -rf {path}"),
            4 => format!("rm -rf {path}; mkdir -p {path}; rm -rf {path}/c; echo {n} >{path}/c"),
            5 => format!("ln {path} {other}"),
            6 => format!("mv -T {path} {other}"),
            7 => format!("ln -s {other} {path}"),
            8 => format!("chmod {}{}{} {path}", n % 8, (n + 3) % 8, n % 5),
            9 => format!("setfattr -n user.x -v {n} {path}"),
            10 => format!("mknod {path} c 1 3"),
            _ => format!("cp -a {path} {other}"),
        };
        text.push('\n');
    }
    text + "true"
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 12 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_changes_survive(layers in prop::collection::vec(prop::collection::vec(any_deed(), 0..10), 1..4)) {
        if !skip_unless_root() {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let site = Site::new().await;
                for s in site.both() {
                    let (top, below) = layers.split_last().unwrap();
                    let mut parent: Option<String> = None;
                    for (n, deeds) in below.iter().enumerate() {
                        let name = format!("layer-{n}");
                        change(s, "making", parent.as_deref(), &script(deeds), Some(&name)).await;
                        parent = Some(name);
                    }
                    change(s, "top", parent.as_deref(), &script(top), None).await;
                    let (_, layer) = diff(s, "top").await;
                    let tree = applied(s, "again", parent.as_deref(), &layer).await;
                    shown(s, "top").await.assert_same(&tree, s.name());
                    let listed = snapshot_changes(s, "again").await.unwrap();
                    let listed = listed.iter().filter(|change| change.kind != ChangeKind::Changed).collect::<Vec<_>>();
                    let first = snapshot_changes(s, "top").await.unwrap();
                    let first = first.iter().filter(|change| change.kind != ChangeKind::Changed).collect::<Vec<_>>();
                    assert_eq!(first, listed);
                }
            });
        }
    }
}
