//! Images of every make that we could think of.

use std::fs;
use std::path::Path;

use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};

use crate::common::layer::{Layer, record};
use crate::layout::{Layout, Packed};
use crate::tools::sh;

/// How an image gets from the layout to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As it is.
    Copied,
    /// By skopeo, with these options, which change it.
    Skopeo(&'static str),
    /// By way of a file as `docker save` writes it, which each side reads without a registry.
    Archive,
}

/// An image, and what reads it beside us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Make {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    /// Whether umoci can unpack it, or why not.
    pub(crate) umoci: Result<(), &'static str>,
    /// The same of containerd. What neither can, is compared with the tree that the layer was made of.
    pub(crate) containerd: Result<(), &'static str>,
}

const fn make(name: &'static str) -> Make {
    Make {
        name,
        way: Way::Copied,
        umoci: Ok(()),
        containerd: Ok(()),
    }
}

impl Make {
    const fn by(self, way: Way) -> Self {
        Self { way, ..self }
    }

    const fn not_umoci(self, why: &'static str) -> Self {
        Self {
            umoci: Err(why),
            ..self
        }
    }

    const fn not_containerd(self, why: &'static str) -> Self {
        Self {
            containerd: Err(why),
            ..self
        }
    }
}

const WRITES_ZEROS: &str = "it writes every zero of a hole, 9 GiB here";
const NO_ZSTD: &str = "umoci 0.4 knows no zstd";

/// All of them. umoci's own images are in `images.rs`.
pub(crate) const MAKES: &[Make] = &[
    make("plain"),
    make("buildah"),
    make("schema2").by(Way::Skopeo("--format v2s2")),
    make("manifest-list")
        .by(Way::Skopeo("--format v2s2 --all"))
        .not_umoci("it wants one image for a tag"),
    make("docker-save").by(Way::Archive),
    make("recompressed").by(Way::Skopeo("--dest-compress-format zstd")),
    make("zstd").not_umoci(NO_ZSTD),
    make("estargz"),
    make("zstd-chunked").not_umoci(NO_ZSTD),
    make("hundred-layers"),
    make("links-across-layers").not_containerd("it looks for the target in the same layer"),
    make("whiteouts"),
    make("xattrs"),
    make("trusted-xattrs").not_containerd("it leaves trusted.* out"),
    make("through-links").not_containerd("it does not see the links of lower layers"),
    make("devices"),
    make("sparse").not_umoci(WRITES_ZEROS).not_containerd(WRITES_ZEROS),
    make("strange-names"),
    make("long-paths"),
    make("no-end-marker"),
    make("trailing-bytes"),
    make("foreign-owners"),
    make("times"),
    make("before-1970").not_containerd("it takes them for 1970"),
    make("empty-layers"),
    make("old-headers"),
    make("replacements"),
    make("no-parents").not_umoci("it gives directories that no layer describes times of its own"),
    make("links"),
    make("global-headers").not_umoci("it does not know their type"),
];

/// Makes all images in one layout, each with its name for a tag.
pub(crate) fn make_all(folder: &Path) -> Layout {
    let mut layout = Layout::new(folder.join("makes"));
    for make in MAKES.iter().filter(|make| make.name != "buildah") {
        let mut target = layout.manifest(&layers(make.name, folder));
        if make.name == "manifest-list" {
            let mut other = layout.manifest(&[Packed::gzip(Layer::new().file("other", "platform").done())]);
            other["platform"] = serde_json::json!({ "os": "linux", "architecture": "s390x" });
            target = layout.index(&[other, target]);
        }
        layout.tag(make.name, target);
    }
    buildah(folder, &layout);
    layout
}

/// An image that buildah made, in a layout of its own: it does not add to one that others write.
fn buildah(folder: &Path, layout: &Layout) {
    sh(&format!(
        r#"
cd {folder}; mkdir -p context/bin; echo hello >context/file; ln context/file context/second; ln -s file context/link
chmod 4755 context/bin; setfattr -n user.note -v text context/file
build="buildah --root $PWD/storage --runroot $PWD/run --storage-driver vfs"
container=$($build from scratch)
$build copy -q $container context / >/dev/null
$build config --cmd /bin/sh --label made=by-buildah $container
$build commit -q --disable-compression=false --format oci $container oci:$PWD/buildah:buildah >/dev/null
$build rm $container >/dev/null
skopeo copy -q oci:buildah:buildah oci:{layout}:buildah
"#,
        folder = folder.display(),
        layout = layout.path.display()
    ));
}

/// What an ordinary image has.
fn ordinary() -> Vec<Vec<u8>> {
    let first = Layer::new()
        .dir("etc")
        .file("etc/one", "first")
        .file("etc/two", "first")
        .dir("usr")
        .dir("usr/bin")
        .entry(Regular, b"usr/bin/tool", b"", 0o6755, &[0x5a; 70_000])
        .symlink("bin", "usr/bin")
        .entry(Link, b"usr/bin/same", b"usr/bin/tool", 0o6755, b"")
        .entry(Directory, b"tmp", b"", 0o1777, b"");
    let second = Layer::new()
        .dir("etc")
        .file("etc/one", "second")
        .file("etc/.wh.two", "");
    vec![first.done(), second.done()]
}

fn gzip(layer: Layer) -> Packed {
    Packed::gzip(layer.done())
}

fn layers(make: &str, folder: &Path) -> Vec<Packed> {
    match make {
        "plain" => ordinary().into_iter().map(Packed::plain).collect(),
        "zstd" => ordinary().into_iter().map(Packed::zstd).collect(),
        "estargz" => vec![Packed::many_members(
            [
                &Layer::new()
                    .file("usr/note", "many members")
                    .file(".no.prefetch.landmark", "\u{f}")
                    .0[..],
                &ordinary().remove(0),
            ]
            .concat(),
        )],
        "zstd-chunked" => ordinary().into_iter().map(Packed::chunked).collect(),
        "hundred-layers" => (0..100).map(one_of_many).collect(),
        "links-across-layers" => links_across_layers(),
        "whiteouts" => whiteouts(),
        "xattrs" => vec![gzip(xattrs())],
        "devices" => vec![gzip(devices())],
        "sparse" => sparse(folder),
        "strange-names" => vec![gzip(strange_names())],
        "long-paths" => vec![gzip(long_paths())],
        "no-end-marker" => ordinary()
            .into_iter()
            .map(|mut archive| {
                archive.truncate(archive.len() - 1024);
                Packed::gzip(archive)
            })
            .collect(),
        "trailing-bytes" => ordinary()
            .into_iter()
            .map(|archive| Packed::gzip([&archive[..], &[0; 9216], b"and then something"].concat()))
            .collect(),
        "foreign-owners" => vec![gzip(foreign_owners())],
        "trusted-xattrs" => vec![gzip(Layer::new().xattr("trusted.note", b"root's").file("trusted", ""))],
        "through-links" => {
            let first = Layer::new().dir("usr").dir("usr/bin").symlink("bin", "usr/bin");
            vec![gzip(first), gzip(Layer::new().file("bin/through-a-link", "followed"))]
        }
        "times" => vec![gzip(times(&[
            "0",
            "0.000000001",
            "981173106.123456789",
            "4102444800.999999999",
            "4294967296.5",
        ]))],
        "before-1970" => vec![gzip(times(&["-86400", "-0.25", "-1.5"]))],
        "empty-layers" => empty_layers(),
        "old-headers" => vec![
            by_gnu_tar(folder, "gnu", "--format=gnu"),
            by_gnu_tar(folder, "v7", "--format=v7"),
        ],
        "replacements" => replacements(),
        "no-parents" => no_parents(),
        "links" => vec![gzip(links())],
        "global-headers" => vec![gzip(global_headers())],
        // Those that skopeo changes.
        _ => ordinary().into_iter().map(Packed::gzip).collect(),
    }
}

fn one_of_many(number: usize) -> Packed {
    gzip(
        Layer::new()
            .dir("layers")
            .file(&format!("layers/{number}"), &number.to_string())
            .file("layers/last", &number.to_string())
            .file(&format!("layers/.wh.{}", number.wrapping_sub(10)), ""),
    )
}

fn links_across_layers() -> Vec<Packed> {
    let first = Layer::new()
        .dir("a")
        .file("a/file", "shared")
        .file("a/other", "replaced later");
    let second = Layer::new()
        .dir("b")
        .hard_link("b/link", "a/file")
        .hard_link("b/third", "b/link");
    let third = Layer::new().file("a/other", "new").hard_link("a/again", "a/other");
    vec![gzip(first), gzip(second), gzip(third)]
}

fn whiteouts() -> Vec<Packed> {
    let mut first = Layer::new();
    for directory in ["opaque-first", "opaque-last", "explicit", "gone", "again"] {
        first = first
            .dir(directory)
            .file(&format!("{directory}/old"), "old")
            .dir(&format!("{directory}/below"))
            .file(&format!("{directory}/below/old"), "old");
    }
    let second = Layer::new()
        .dir("opaque-first")
        .file("opaque-first/.wh..wh..opq", "")
        .file("opaque-first/new", "new")
        .dir("opaque-last")
        .file("opaque-last/new", "new")
        .file("opaque-last/.wh..wh..opq", "")
        .file("explicit/.wh.old", "")
        .file("explicit/.wh.below", "")
        .file(".wh.gone", "")
        .file(".wh.again", "")
        .file(".wh.never-was", "");
    let third = Layer::new()
        .dir("again")
        .file("again/new", "third")
        .file("explicit/old", "back");
    vec![gzip(first), gzip(second), gzip(third)]
}

fn xattrs() -> Layer {
    // VFS_CAP_REVISION_2 with CAP_NET_RAW, effective; and revision 3, of the namespace whose root is 1000.
    let (mut second, mut third) = ([0; 20], [0; 24]);
    second[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
    third[..8].copy_from_slice(&[1, 0, 0, 3, 0, 0x20, 0, 0]);
    third[20..].copy_from_slice(&1000u32.to_le_bytes());
    let mut several = Vec::new();
    for (key, value) in [
        ("SCHILY.xattr.user.one", &b"1"[..]),
        ("SCHILY.xattr.user.two", b"a\0b=c\n\xff"),
    ] {
        record(&mut several, key, value);
    }
    Layer::new()
        .xattr("security.capability", &second)
        .file("capable", "program")
        .xattr("security.capability", &third)
        .file("capable-in-a-namespace", "program")
        .pax(&several)
        .file("several", "attributes")
        .xattr("user.long", &[b'x'; 2000])
        .dir("directory")
        .hard_link("directory/link", "several")
}

fn devices() -> Layer {
    Layer::new()
        .dir("dev")
        .entry(Char, b"dev/null", b"", 0o666, b"")
        .entry(Block, b"dev/ram", b"", 0o660, b"")
        .entry(Fifo, b"dev/pipe", b"", 0o622, b"")
        .entry(Link, b"dev/also-null", b"dev/null", 0o666, b"")
        .entry(Link, b"dev/also-pipe", b"dev/pipe", 0o622, b"")
}

/// Files of 4 GiB that are nearly all hole, by GNU tar.
fn sparse(folder: &Path) -> Vec<Packed> {
    let tree = folder.join("sparse");
    fs::create_dir(&tree).expect("a folder");
    sh(&format!(
        "cd {}; truncate -s 4G middle; printf data | dd of=middle bs=1 seek=3000000000 conv=notrunc status=none
         printf begin >ends; truncate -s 4294967290 ends; printf finish >>ends; truncate -s 1G hole",
        tree.display()
    ));
    vec![by_gnu_tar_of(&tree, folder, "sparse-pax", "--format=posix --sparse")]
}

fn by_gnu_tar(folder: &Path, name: &str, options: &str) -> Packed {
    let tree = folder.join(name);
    let long = match name {
        "v7" => String::new(),
        _ => format!(
            "long=$(printf '{name}%.0s' $(seq 60)); mkdir -p $long/$long; echo long >$long/$long/$long; ln -s $long/$long/$long link; mkfifo fifo;"
        ),
    };
    sh(&format!(
        "mkdir {0}; cd {0}; {long} mkdir {name}; echo {name} >{name}/file; ln {name}/file {name}/second; ln -s file {name}/link",
        tree.display()
    ));
    by_gnu_tar_of(&tree, folder, &format!("{name}-layer"), options)
}

fn by_gnu_tar_of(tree: &Path, folder: &Path, name: &str, options: &str) -> Packed {
    let file = folder.join(name);
    sh(&format!(
        "tar {options} --numeric-owner -C {} -cf {} .",
        tree.display(),
        file.display()
    ));
    Packed::gzip(fs::read(file).expect("the archive"))
}

fn strange_names() -> Layer {
    let mut layer = Layer::new().dir("names");
    for name in [
        &b"latin-\xe9"[..],
        b"\xff\xfe",
        b"line\nfeed",
        b" space ",
        b"back\\slash",
        b"tab\t",
        b"-dash",
        "umlaut-ä-日本".as_bytes(),
        b"..dots",
        b"wh.not",
        b"*",
    ] {
        layer = layer.entry(Regular, &[b"names/", name].concat(), b"", 0o644, name);
    }
    let longest = [b'n'; 255];
    layer
        .entry(Symlink, b"names/to-latin", b"latin-\xe9", 0o777, b"")
        .entry(Link, b"names/linked", b"names/latin-\xe9", 0o644, b"")
        .entry(Regular, &[b"names/", &longest[..]].concat(), b"", 0o644, b"long")
        .entry(Symlink, b"names/long-target", &[b't'; 3000], 0o777, b"")
}

/// Directories down to a path of 4,000 bytes.
fn long_paths() -> Layer {
    let mut layer = Layer::new();
    let mut path = Vec::new();
    for _ in 0..19 {
        path.extend([b'd'; 199]);
        layer = layer.entry(Directory, &path, b"", 0o750, b"");
        path.push(b'/');
    }
    let file = [&path[..], &[b'f'; 200 - 1]].concat();
    layer
        .entry(Regular, &file, b"", 0o600, b"deep")
        .entry(Link, &[&path[..], b"link"].concat(), &file, 0o600, b"")
}

fn with(layer: Layer, records: &[(&str, &str)]) -> Layer {
    let mut bytes = Vec::new();
    for (key, value) in records {
        record(&mut bytes, key, value.as_bytes());
    }
    layer.pax(&bytes)
}

fn foreign_owners() -> Layer {
    let mut layer = Layer::new();
    for id in ["65535", "65536", "100000", "2097152", "4294967294"] {
        layer = with(layer, &[("uid", id), ("gid", id)]).file(&format!("of-{id}"), id);
        layer = with(layer, &[("uid", id)]).entry(Regular, format!("setuid-{id}").as_bytes(), b"", 0o6755, b"x");
        layer = with(layer, &[("gid", id)]).symlink(&format!("link-{id}"), "target");
    }
    layer
}

fn times(times: &[&str]) -> Layer {
    let mut layer = Layer::new();
    for time in times {
        layer = with(layer, &[("mtime", time)]).file(&format!("at{time}"), time);
        layer = with(layer, &[("mtime", time)]).symlink(&format!("link{time}"), "target");
        layer = with(layer, &[("mtime", time)]).dir(&format!("directory{time}"));
    }
    layer
}

fn empty_layers() -> Vec<Packed> {
    let nothing = Packed::gzip(Layer::new().done());
    let first = gzip(Layer::new().dir("etc").file("etc/file", "there"));
    vec![nothing.clone(), first.clone(), nothing.clone(), nothing, first]
}

fn replacements() -> Vec<Packed> {
    let first = Layer::new()
        .file("file-to-directory", "file")
        .dir("directory-to-file")
        .file("directory-to-file/inside", "gone")
        .dir("target")
        .file("target/kept", "kept")
        .symlink("link-to-directory", "target")
        .dir("directory-to-link")
        .file("directory-to-link/inside", "gone")
        .file("file-to-link", "file")
        .entry(Directory, b"mode-changes", b"", 0o700, b"")
        .file("mode-changes/inside", "kept");
    let second = Layer::new()
        .dir("file-to-directory")
        .file("file-to-directory/inside", "new")
        .file("directory-to-file", "file")
        .dir("link-to-directory")
        .file("link-to-directory/inside", "new")
        .symlink("directory-to-link", "target")
        .symlink("file-to-link", "target/kept")
        .entry(Directory, b"mode-changes", b"", 0o2755, b"")
        .file("twice", "first")
        .file("twice", "second");
    vec![gzip(first), gzip(second)]
}

fn no_parents() -> Vec<Packed> {
    let first = Layer::new()
        .file("a/b/c/file", "deep")
        .file("./dotted/./file", "dots")
        .file("/absolute/file", "root");
    let second = Layer::new().file("a/b/other", "later").file("x/y/file", "second");
    vec![gzip(first), gzip(second)]
}

fn links() -> Layer {
    Layer::new()
        .symlink("dangling", "/nowhere")
        .symlink("loop", "loop")
        .symlink("absolute", "/directory/file")
        .dir("directory")
        .file("directory/file", "content")
        .symlink("directory/up", "../directory/file")
        .hard_link("hard", "directory/file")
        .hard_link("directory/hard-to-link", "absolute")
        .symlink("into", "/directory")
        .file("into/written-through", "inside")
}

/// As `git archive` writes it: a comment for all entries.
fn global_headers() -> Layer {
    let mut comment = Vec::new();
    record(&mut comment, "comment", b"1234567890");
    Layer::new()
        .raw(
            tar::EntryType::XGlobalHeader,
            b"pax_global_header",
            b"",
            0o666,
            comment.len() as u64,
            &comment,
        )
        .file("file", "after a global header")
}
