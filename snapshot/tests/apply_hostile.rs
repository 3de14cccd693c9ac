//! Layers that try what a layer must not. Whatever becomes of each, nothing outside of the target changes.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::layer::{Layer, record};
use common::{Tree, skip_unless_root};
use longshore_linux::Mount;
use longshore_snapshot::{Applied, ApplyOptions, ErrorKind, Limits, Result, apply_layer};
use tar::EntryType;

/// A target with things around it that must stay as they are.
struct Jail {
    temp: tempfile::TempDir,
    before: Tree,
}

impl Jail {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["upper", "work", "lower1", "lower2", "outside/etc"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        let outside = temp.path().join("outside");
        fs::write(outside.join("etc/passwd"), "root:x").unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        let lower = temp.path().join("lower1");
        std::os::unix::fs::symlink(&outside, lower.join("low-abs")).unwrap();
        std::os::unix::fs::symlink("../../outside", lower.join("low-rel")).unwrap();
        std::os::unix::fs::symlink("/proc/self/cwd", lower.join("low-proc")).unwrap();
        let before = Self::around(&temp);
        Self { temp, before }
    }

    fn around(temp: &tempfile::TempDir) -> Tree {
        let mut tree = Tree::read(temp.path());
        tree.0.retain(|path, _| !path.is_empty() && !path.starts_with("upper"));
        tree
    }

    fn upper(&self) -> PathBuf {
        self.temp.path().join("upper")
    }

    fn mount(&self, overlay: bool) -> Mount {
        if !overlay {
            return Mount::bind(self.upper());
        }
        let dir = |name: &str| self.temp.path().join(name).display().to_string();
        Mount {
            fs_type: "overlay".into(),
            source: "overlay".into(),
            target: None,
            options: vec![
                format!("lowerdir={}:{}", dir("lower1"), dir("lower2")),
                format!("upperdir={}", dir("upper")),
                format!("workdir={}", dir("work")),
            ],
        }
    }

    fn check(&self) {
        self.before
            .assert_same(&Self::around(&self.temp), "outside of the target");
    }
}

/// Applies to a plain directory and to an overlay; nothing outside may change. `outside` in a path stands for the outer directory.
fn attack(layer: impl Fn(&str) -> Layer) -> [Result<Applied>; 2] {
    [false, true].map(|overlay| {
        let jail = Jail::new();
        let outside = jail.temp.path().join("outside").display().to_string();
        let bytes = layer(&outside).done();
        let answer = apply_layer(&[jail.mount(overlay)], &bytes[..], &ApplyOptions::default());
        jail.check();
        answer
    })
}

fn assert_invalid(answers: [Result<Applied>; 2], names: &str) {
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidLayer, "{error}");
        assert!(error.to_string().contains(names), "'{error}' should name '{names}'");
    }
}

fn assert_harmless(answers: [Result<Applied>; 2]) {
    for answer in answers {
        answer.unwrap();
    }
}

#[test]
fn paths_that_leave_the_root() {
    if skip_unless_root() {
        return;
    }
    for path in [
        "../../etc/passwd",
        "../x",
        "a/../../x",
        "/../x",
        "./../outside/secret",
        "..",
    ] {
        assert_invalid(attack(|_| Layer::new().file(path, "evil")), path);
        assert_invalid(attack(|_| Layer::new().dir(path)), path);
        assert_invalid(
            attack(|_| Layer::new().file("f", "").hard_link("l", path)),
            "path leaves the root",
        );
    }
    for path in ["../.wh.outside", "a/../../.wh.secret"] {
        assert_invalid(attack(|_| Layer::new().file(path, "")), path);
    }
}

#[test]
fn absolute_paths_start_at_the_root() {
    if skip_unless_root() {
        return;
    }
    assert_harmless(attack(|outside| {
        Layer::new()
            .file("/etc/passwd", "mine")
            .file(&format!("{outside}/secret"), "mine")
            .hard_link("/etc/link", "/etc/passwd")
            .file(&format!("{outside}/.wh.secret"), "")
            .file(&format!("{outside}/etc/.wh..wh..opq"), "")
    }));
}

#[test]
fn symbolic_links_lead_nowhere_else() {
    if skip_unless_root() {
        return;
    }
    for target in [
        "OUT",
        "/",
        "../../outside",
        "../../../../../../../../tmp",
        "/proc/self/cwd",
        "/proc/self/root",
        ".",
    ] {
        assert_harmless(attack(|outside| {
            let target = target.replace("OUT", outside);
            Layer::new()
                .symlink("link", &target)
                .file("link/secret", "evil")
                .dir("link/etc")
                .file("link/etc/passwd", "evil")
                .file("link/.wh.secret", "")
                .file("link/etc/.wh..wh..opq", "")
                .symlink("link/deeper", "link")
                .file("link/deeper/x", "evil")
        }));
    }
    // The same through links that a lower layer has; on a plain directory these are just directories.
    for link in ["low-abs", "low-rel", "low-proc"] {
        assert_harmless(attack(|_| {
            Layer::new()
                .file(&format!("{link}/secret"), "evil")
                .file(&format!("{link}/etc/passwd"), "evil")
                .file(&format!("{link}/.wh.secret"), "")
                .file(&format!("{link}/.wh..wh..opq"), "")
        }));
    }
    assert_invalid(
        attack(|_| Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", "")),
        "too many symbolic links",
    );
}

#[test]
fn the_last_component_is_never_followed() {
    if skip_unless_root() {
        return;
    }
    assert_harmless(attack(|outside| {
        Layer::new()
            .symlink("f", &format!("{outside}/secret"))
            .file("f", "replaced, not written through")
            .symlink("d", &format!("{outside}/etc"))
            .dir("d")
            .file("d/passwd", "mine")
            .symlink("n", &format!("{outside}/new"))
            .entry(EntryType::Fifo, b"n", b"", 0o644, b"")
            .symlink("h", &format!("{outside}/secret"))
            .hard_link("h2", "h")
            .file("h2", "only the link's name is replaced")
    }));
    // A hard link to a symbolic link is one to the link itself: chmod and chown of the next entry must not reach what it points to.
    assert_invalid(
        attack(|outside| Layer::new().symlink("s", outside).hard_link("l", "s/secret")),
        "does not exist",
    );
    assert_invalid(
        attack(|outside| Layer::new().hard_link("l", &format!("{outside}/secret"))),
        "does not exist",
    );
}

#[test]
fn a_directory_swapped_for_a_link_in_one_layer() {
    if skip_unless_root() {
        return;
    }
    assert_harmless(attack(|outside| {
        Layer::new()
            .dir("etc")
            .file("etc/one", "")
            .symlink("etc", outside)
            .file("etc/secret", "evil")
            .dir("deep/er")
            .file("deep/er/x", "")
            .symlink("deep", &format!("{outside}/etc"))
            .file("deep/er/y", "evil")
            .file("deep/passwd", "evil")
    }));
}

#[test]
fn whiteouts_of_nothing() {
    if skip_unless_root() {
        return;
    }
    for path in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh..."] {
        assert_invalid(attack(|_| Layer::new().dir("a").file(path, "")), path);
    }
    assert_harmless(attack(|_| {
        Layer::new()
            .file(".wh.low-abs", "")
            .file(".wh.not-there", "")
            .file("x/y/.wh.z", "")
    }));
}

#[test]
fn devices_and_attributes_of_overlay_itself() {
    if skip_unless_root() {
        return;
    }
    let device = |overlay: bool| {
        let jail = Jail::new();
        let mut layer = Layer::new().entry(EntryType::Char, b"hidden", b"", 0o666, b"");
        layer.0[329..345].fill(b'0');
        layer.0[336] = 0;
        layer.0[344] = 0;
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&layer.0[..512]);
        header.set_cksum();
        layer.0[..512].copy_from_slice(header.as_bytes());
        apply_layer(&[jail.mount(overlay)], &layer.done()[..], &ApplyOptions::default())
    };
    assert_eq!(device(true).unwrap_err().kind(), ErrorKind::InvalidLayer);
    device(false).unwrap();
    for key in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "security.selinux",
    ] {
        for answer in attack(|_| {
            Layer::new()
                .xattr(key, b"y")
                .dir("dir")
                .xattr(key, b"/etc")
                .file("file", "")
        }) {
            assert_eq!(answer.unwrap().skipped.xattrs, 2, "{key}");
        }
    }
}

#[test]
fn headers_that_are_too_much() {
    if skip_unless_root() {
        return;
    }
    let mut huge = Vec::new();
    record(&mut huge, "comment", &vec![b'x'; 2 << 20]);
    assert_invalid(
        attack(|_| Layer::new().pax(&huge).file("f", "")),
        "metadata exceeds limit",
    );
    assert_invalid(
        attack(|_| Layer::new().raw(EntryType::XHeader, b"pax", b"", 0, u64::from(u32::MAX), b"")),
        "metadata",
    );
    assert_invalid(attack(|_| Layer::new().file(&"d/".repeat(2000), "")), "deeper than");
    assert_invalid(
        attack(|_| Layer::new().file(&"long".repeat(2000), "")),
        "path exceeds limit",
    );
    assert_invalid(
        attack(|_| Layer::new().file(&"n".repeat(300), "")),
        "longer than the filesystem allows",
    );
    let mut map = Vec::new();
    record(&mut map, "GNU.sparse.map", b"10,5,0,5");
    record(&mut map, "GNU.sparse.size", b"100");
    assert_invalid(attack(|_| Layer::new().pax(&map).file("f", "0123456789")), "sparse map");
    let mut owner = Vec::new();
    record(&mut owner, "uid", b"4294967295");
    assert_invalid(attack(|_| Layer::new().pax(&owner).file("f", "")), "uid");
    let mut zero = Vec::new();
    record(&mut zero, "path", b"a\0b");
    assert_invalid(attack(|_| Layer::new().pax(&zero).file("f", "")), "zero byte");
    // A sparse file of GNU's old format whose extension blocks never end.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("endless").unwrap();
    header.set_size(0);
    header.as_gnu_mut().unwrap().set_is_extended(true);
    header.set_cksum();
    let mut endless = header.as_bytes().to_vec();
    let mut block = [0; 512];
    block[504] = 1;
    for _ in 0..40_000 {
        endless.extend(block);
    }
    assert_invalid(attack(|_| Layer(endless.clone())), "headers take more than");
}

#[test]
fn damaged_archives() {
    if skip_unless_root() {
        return;
    }
    let whole = Layer::new().file("a", &"content ".repeat(300)).file("b", "b").done();
    let apply = |bytes: &[u8]| {
        let target = tempfile::tempdir().unwrap();
        apply_layer(&[Mount::bind(target.path())], bytes, &ApplyOptions::default())
    };
    let ends: Vec<usize> = vec![0, 512 + 2560, 512 + 2560 + 1024, whole.len() - 512, whole.len()];
    for len in (0..=whole.len()).step_by(128) {
        let answer = apply(&whole[..len]);
        if ends.contains(&len) {
            answer.unwrap_or_else(|error| panic!("{len}: {error}"));
        } else {
            let error = answer.unwrap_err();
            assert!(error.to_string().contains("damaged after"), "{len}: {error}");
        }
    }
    let error = apply(&b"<html>not found</html>".repeat(100)).unwrap_err();
    assert!(error.to_string().contains("not a tar archive"), "{error}");
    let mut flipped = whole.clone();
    flipped[3072 + 5] ^= 1;
    assert!(apply(&flipped).unwrap_err().to_string().contains("checksum"));

    // Compressed.
    let gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&whole).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&whole[..], 3).unwrap();
    let plain = apply(&whole).unwrap();
    for compressed in [&gzip, &zstd] {
        assert_eq!(apply(compressed).unwrap(), plain);
        for cut in [1, 5, 9, compressed.len() / 2] {
            let error = apply(&compressed[..compressed.len() - cut]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidLayer, "{error}");
        }
    }
    let mut flipped = gzip.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    assert_eq!(apply(&flipped).unwrap_err().kind(), ErrorKind::InvalidLayer);
    // Several members, and a frame that says nothing.
    let mut members = gzip.clone();
    let tail = [0u8; 700];
    members.extend({
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tail).unwrap();
        encoder.finish().unwrap()
    });
    let mut frames = vec![0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    frames.extend(&zstd);
    frames.extend([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]);
    assert_eq!(apply(&frames).unwrap(), plain);
    let mut trailing = whole.clone();
    trailing.extend(tail);
    let expected = apply(&trailing).unwrap();
    assert_eq!(
        expected.size,
        trailing.len() as u64,
        "what follows the end marker counts"
    );
    assert_ne!(expected.diff_id, plain.diff_id);
    assert_eq!(apply(&members).unwrap(), expected);
}

#[test]
fn the_diff_id_and_the_size_are_checked() {
    let target = tempfile::tempdir().unwrap();
    let mounts = [Mount::bind(target.path())];
    let layer = vec![0; 4096];
    let applied = apply_layer(&mounts, &layer[..], &ApplyOptions::default()).unwrap();
    let options = ApplyOptions::default().diff_id(applied.diff_id);
    apply_layer(&mounts, &layer[..], &options).unwrap();
    let error = apply_layer(&mounts, &layer[..2048], &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);

    // A bomb: four megabytes of zeros in four kilobytes.
    let bomb = zstd::encode_all(&vec![0; 4 << 20][..], 3).unwrap();
    let mut limits = Limits::default();
    limits.size = Some(1 << 20);
    let error = apply_layer(&mounts, &bomb[..], &ApplyOptions::default().limits(limits)).unwrap_err();
    assert!(error.to_string().contains("limit of 1048576 bytes"), "{error}");
}

#[test]
fn the_error_of_the_source_is_passed_on() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the connection was cut"))
        }
    }
    use std::io::Read;
    let target = tempfile::tempdir().unwrap();
    let gzip_start = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for start in [&gzip_start[..], &[0; 600]] {
        let answer = apply_layer(
            &[Mount::bind(target.path())],
            start.chain(Broken),
            &ApplyOptions::default(),
        );
        let error = answer.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "the connection was cut");
    }
}
