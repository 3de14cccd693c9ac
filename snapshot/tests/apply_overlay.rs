//! Layers applied one on another: what overlay shows, really mounted, is what copying whole trees (native) gives.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::layer::Layer;
use common::{Tree, skip_unless_root};
use longshore_snapshot::conformance::Mounted;
use longshore_snapshot::{
    ApplyOptions, Labels, NativeSnapshotter, OverlaySnapshotter, Result, Snapshotter, apply_layer,
};
use proptest::prelude::*;
use tar::EntryType;

/// Both snapshotters, and what they hold.
struct Pair {
    overlay: OverlaySnapshotter,
    native: NativeSnapshotter,
    _root: tempfile::TempDir,
}

impl Pair {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            overlay: OverlaySnapshotter::open(root.path().join("overlay")).await.unwrap(),
            native: NativeSnapshotter::open(root.path().join("native")).await.unwrap(),
            _root: root,
        }
    }

    /// Applies the layers, and gives what both show at the end; fails when one of them fails.
    async fn show(&self, layers: &[Vec<u8>]) -> [Result<Tree>; 2] {
        [show(&self.overlay, layers).await, show(&self.native, layers).await]
    }
}

async fn show(snapshotter: &dyn Snapshotter, layers: &[Vec<u8>]) -> Result<Tree> {
    let mut parent: Option<String> = None;
    let mut answer = Ok(());
    for (n, layer) in layers.iter().enumerate() {
        let mounts = snapshotter.prepare("making", parent.as_deref(), Labels::new()).await?;
        answer = apply_layer(&mounts, &layer[..], &ApplyOptions::default()).map(drop);
        if answer.is_err() {
            snapshotter.remove("making").await?;
            break;
        }
        let name = format!("layer-{n}");
        snapshotter.commit("making", &name, Labels::new()).await?;
        parent = Some(name);
    }
    let mounts = snapshotter.prepare("top", parent.as_deref(), Labels::new()).await?;
    let mounted = Mounted::new(&mounts);
    let tree = Tree::read(&mounted.path(""));
    drop(mounted);
    let mut infos = snapshotter.walk().await?;
    while !infos.is_empty() {
        for info in std::mem::take(&mut infos) {
            if snapshotter.remove(&info.key).await.is_err() {
                infos.push(info);
            }
        }
    }
    answer.map(|()| tree)
}

/// What may differ: link counts (overlay shows those of the layer a file is in) and times of directories that no entry describes.
fn comparable(tree: Tree) -> Tree {
    let mut tree = tree;
    for line in tree.0.values_mut() {
        let dir = line.starts_with("mode=4");
        let differs = |word: &str| {
            word.starts_with("links=") || word.starts_with("first=") || (dir && word.starts_with("mtime="))
        };
        *line = line
            .split(' ')
            .filter(|word| !differs(word))
            .collect::<Vec<_>>()
            .join(" ");
    }
    tree
}

async fn same(layers: Vec<Layer>) -> Tree {
    let layers: Vec<Vec<u8>> = layers.into_iter().map(Layer::done).collect();
    let pair = Pair::new().await;
    let [overlay, native] = pair.show(&layers).await.map(|tree| comparable(tree.unwrap()));
    native.assert_same(&overlay, "native and overlay");
    overlay
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.names().into_iter().filter(|name| !name.is_empty()).collect()
}

fn line<'a>(tree: &'a Tree, path: &str) -> &'a str {
    &tree.0[path]
}

fn opaque(dir: &str) -> String {
    format!("{dir}/.wh..wh..opq")
}

#[tokio::test]
async fn whiteouts_hide_what_is_below_and_only_that() {
    if skip_unless_root() {
        return;
    }
    let base = || {
        Layer::new()
            .dir("d")
            .file("d/a", "")
            .dir("d/s")
            .file("d/s/x", "")
            .file("f", "")
            .dir("e")
            .file("e/y", "")
    };
    // A file, a directory, something that is not there.
    let tree = same(vec![
        base(),
        Layer::new()
            .file(".wh.f", "")
            .file(".wh.e", "")
            .file("d/.wh.nothing", ""),
    ])
    .await;
    assert_eq!(names(&tree), ["d", "d/a", "d/s", "d/s/x"]);
    // In either order the layer's own file stays, and shows nothing of the directory that it replaces.
    for order in [true, false] {
        let entries = [
            Layer::new().file("e/.wh.y", "").file(".wh.e", ""),
            Layer::new().dir("e").file("e/new", ""),
        ];
        let mut layer = Layer::new();
        for part in if order { [0, 1] } else { [1, 0] } {
            layer.0.extend(&entries[part].0);
        }
        let tree = same(vec![base(), layer]).await;
        assert_eq!(
            names(&tree),
            ["d", "d/a", "d/s", "d/s/x", "e", "e/new", "f"],
            "whiteout first: {order}"
        );
    }
    for order in [true, false] {
        let entries = [
            Layer::new().file(&opaque("d"), ""),
            Layer::new().file("d/new", "").file("d/s/new", ""),
        ];
        let mut layer = Layer::new();
        for part in if order { [0, 1] } else { [1, 0] } {
            layer.0.extend(&entries[part].0);
        }
        let tree = same(vec![base(), layer]).await;
        assert_eq!(
            names(&tree),
            ["d", "d/new", "d/s", "d/s/new", "e", "e/y", "f"],
            "opaque first: {order}"
        );
    }
    // The root.
    let tree = same(vec![
        base(),
        Layer::new().file("d/kept", "").file(".wh..wh..opq", "").dir("e"),
    ])
    .await;
    assert_eq!(names(&tree), ["d", "d/kept", "e"]);
    // What was hidden by one layer and made again by the next is new.
    let tree = same(vec![
        base(),
        Layer::new().file(".wh.d", ""),
        Layer::new().file("d/b", ""),
    ])
    .await;
    assert_eq!(names(&tree), ["d", "d/b", "e", "e/y", "f"]);
    // Whiteouts of the whole middle layer, three layers down.
    let tree = same(vec![
        base(),
        base(),
        Layer::new().file(&opaque("d"), ""),
        Layer::new().dir("d").file("d/.wh.s", ""),
    ])
    .await;
    assert_eq!(names(&tree), ["d", "e", "e/y", "f"]);
}

#[tokio::test]
async fn types_that_replace_each_other() {
    if skip_unless_root() {
        return;
    }
    let base = || Layer::new().dir("d").file("d/a", "").file("f", "").symlink("l", "d");
    let tree = same(vec![
        base(),
        Layer::new()
            .file("d", "now a file")
            .dir("f")
            .file("f/x", "")
            .dir("l")
            .file("l/y", ""),
    ])
    .await;
    assert_eq!(names(&tree), ["d", "f", "f/x", "l", "l/y"]);
    let tree = same(vec![
        base(),
        Layer::new().file("d", ""),
        Layer::new().dir("d").file("d/b", ""),
    ])
    .await;
    assert_eq!(names(&tree), ["d", "d/b", "f", "l"]);
    let tree = same(vec![base(), Layer::new().file("d", "").dir("d").file("d/b", "")]).await;
    assert_eq!(
        names(&tree),
        ["d", "d/b", "f", "l"],
        "a file in between hides the directory below"
    );
    let tree = same(vec![
        base(),
        Layer::new()
            .symlink("d", "f")
            .entry(EntryType::Fifo, b"f", b"", 0o600, b""),
    ])
    .await;
    assert_eq!(names(&tree), ["d", "f", "l"]);
    let tree = same(vec![
        Layer::new()
            .file("a", "1")
            .file("a", "2")
            .dir("d")
            .file("d/x", "")
            .dir("d"),
    ])
    .await;
    assert_eq!(
        names(&tree),
        ["a", "d", "d/x"],
        "the last one counts, directories are merged"
    );
}

#[tokio::test]
async fn paths_through_links_of_lower_layers() {
    if skip_unless_root() {
        return;
    }
    let base = || {
        Layer::new()
            .dir("usr/lib")
            .symlink("lib", "usr/lib")
            .symlink("abs", "/usr")
            .symlink("up", "../../usr/lib/..")
            .file("usr/lib/a", "")
    };
    let tree = same(vec![
        base(),
        Layer::new()
            .file("lib/b", "")
            .file("abs/c", "")
            .file("up/d", "")
            .file("lib/.wh.a", ""),
    ])
    .await;
    assert_eq!(
        names(&tree),
        ["abs", "lib", "up", "usr", "usr/c", "usr/d", "usr/lib", "usr/lib/b"]
    );
    let tree = same(vec![
        base(),
        Layer::new()
            .hard_link("here", "lib/a")
            .hard_link("abs/lib/there", "here"),
    ])
    .await;
    assert_eq!(
        names(&tree),
        [
            "abs",
            "here",
            "lib",
            "up",
            "usr",
            "usr/lib",
            "usr/lib/a",
            "usr/lib/there"
        ]
    );
}

#[tokio::test]
async fn metadata_of_directories_that_are_only_passed_through() {
    if skip_unless_root() {
        return;
    }
    let base = || {
        Layer::new()
            .xattr("user.note", b"kept")
            .entry(EntryType::Directory, b"private", b"", 0o2700, b"")
            .xattr("trusted.note", b"kept too")
            .entry(EntryType::Directory, b"private/inner", b"", 0o1777, b"")
    };
    let tree = same(vec![
        base(),
        Layer::new().file("private/inner/file", "").file("new/dir/file", ""),
    ])
    .await;
    assert!(line(&tree, "private").starts_with("mode=42700") && line(&tree, "private").contains("user.note=kept"));
    assert!(
        line(&tree, "private/inner").starts_with("mode=41777") && line(&tree, "private/inner").contains("trusted.note")
    );
    assert!(line(&tree, "new/dir").starts_with("mode=40755"));
    // An entry that describes it says mode and owner, and takes no attribute away.
    let tree = same(vec![base(), Layer::new().dir("private")]).await;
    assert!(line(&tree, "private").starts_with("mode=40755") && line(&tree, "private").contains("user.note=kept"));
    // The root too.
    let root = |mode| Layer::new().entry(EntryType::Directory, b"./", b"", mode, b"");
    let tree = same(vec![
        root(0o711),
        Layer::new().file("a", ""),
        root(0o1750),
        Layer::new().file("b", ""),
    ])
    .await;
    assert!(line(&tree, "").starts_with("mode=41750"), "{}", line(&tree, ""));
}

#[tokio::test]
async fn hard_links_across_layers() {
    if skip_unless_root() {
        return;
    }
    let base = || {
        Layer::new()
            .dir("d")
            .xattr("user.x", b"1")
            .file("d/a", "content")
            .symlink("d/s", "a")
    };
    let tree = same(vec![
        base(),
        Layer::new()
            .hard_link("b", "d/a")
            .hard_link("c", "b")
            .hard_link("t", "d/s"),
    ])
    .await;
    assert_eq!(names(&tree), ["b", "c", "d", "d/a", "d/s", "t"]);
    assert_eq!(line(&tree, "b"), line(&tree, "d/a"));
    assert!(line(&tree, "b").contains("user.x=1"));
    // To itself: nothing happens to it.
    let tree = same(vec![base(), Layer::new().hard_link("d/a", "./d/../d/a")]).await;
    assert!(line(&tree, "d/a").contains("size=7"));
    // To what a whiteout hides.
    let gone = vec![
        base().done(),
        Layer::new().file("d/.wh.a", "").hard_link("b", "d/a").done(),
    ];
    for answer in Pair::new().await.show(&gone).await {
        assert!(answer.unwrap_err().to_string().contains("hard link to 'd/a'"));
    }
}

/// One entry of a random layer.
fn any_entry() -> impl Strategy<Value = (u8, String, String)> {
    let part = prop_oneof![Just("a"), Just("b"), Just("c")];
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let target = prop_oneof![
        path.clone(),
        path.clone().prop_map(|path| format!("/{path}")),
        path.clone().prop_map(|path| format!("../{path}")),
        Just("..".to_owned()),
    ];
    (0u8..9, path, target)
}

fn build(entries: &[(u8, String, String)]) -> Vec<u8> {
    let mut layer = Layer::new();
    for (n, (kind, path, target)) in entries.iter().enumerate() {
        let whiteout = match path.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        layer = match kind {
            0 | 1 => layer.file(path, &format!("content {n}")),
            2 | 3 => layer.entry(EntryType::Directory, path.as_bytes(), b"", 0o700 + (n as u32 % 8), b""),
            4 => layer.symlink(path, target),
            5 => layer.hard_link(path, target.trim_start_matches(['.', '/'])),
            6 | 7 => layer.file(&whiteout, ""),
            _ => layer.file(&opaque(path), ""),
        };
    }
    layer.done()
}

/// Each case makes a dozen snapshots, so there are few of them unless the environment asks for more.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default().cases
    } else {
        40
    };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_layers_look_the_same(layers in prop::collection::vec(prop::collection::vec(any_entry(), 0..8), 1..4)) {
        if !skip_unless_root() {
            let layers: Vec<_> = layers.iter().map(|entries| build(entries)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                match Pair::new().await.show(&layers).await {
                    [Ok(overlay), Ok(native)] => comparable(native).assert_same(&comparable(overlay), "native and overlay"),
                    [Err(overlay), Err(native)] => assert_eq!(overlay.kind(), native.kind(), "{overlay} / {native}"),
                    [overlay, native] => panic!("overlay: {overlay:?}\nnative: {native:?}"),
                }
            });
        }
    }
}

#[test]
fn an_unusual_target_is_named() {
    let error = apply_layer(
        &[longshore_linux::Mount::bind(Path::new("/nonexistent/here"))],
        &[0; 1024][..],
        &ApplyOptions::default(),
    );
    assert!(error.unwrap_err().to_string().contains("/nonexistent/here"));
}

#[tokio::test]
async fn what_only_holds_a_whiteout_is_not_of_the_layer() {
    if skip_unless_root() {
        return;
    }
    let base = || Layer::new().file("c/a", "").file("c/d/b", "");
    let tree = same(vec![base(), Layer::new().file("c/.wh.a", "").file(".wh.c", "")]).await;
    assert!(names(&tree).is_empty());
    let tree = same(vec![base(), Layer::new().file("c/d/.wh.b", "").file(&opaque("c"), "")]).await;
    assert_eq!(names(&tree), ["c"]);
    let tree = same(vec![
        base(),
        Layer::new().file("c/d/.wh.b", "").file(".wh..wh..opq", ""),
    ])
    .await;
    assert!(names(&tree).is_empty());
    let tree = same(vec![
        base(),
        Layer::new()
            .hard_link("kept", "c/a")
            .file("c/.wh.a", "")
            .file("c/d/.wh.b", ""),
    ])
    .await;
    assert_eq!(names(&tree), ["c", "c/d", "kept"]);
    let tree = same(vec![
        base(),
        Layer::new().file("c/d/.wh.b", "").file("c/d/new", "").file(".wh.c", ""),
    ])
    .await;
    assert_eq!(names(&tree), ["c", "c/d", "c/d/new"]);

    // The way to the root leads through a directory below.
    let tree = same(vec![
        Layer::new().symlink("b/up", ".."),
        Layer::new().file(&opaque("b/up"), ""),
    ])
    .await;
    assert!(names(&tree).is_empty());
}
