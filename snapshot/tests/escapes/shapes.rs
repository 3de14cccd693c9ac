//! Shapes that have no number.
//!
//! | case | what |
//! | --- | --- |
//! | opaque through a link | `.wh..wh..opq` in a link that leads outside |
//! | opaque through a link of the layer | the same, the link from the layer itself |
//! | opaque of the root | all of the base is hidden, nothing else |
//! | whiteout alone | `.wh.`: refused |
//! | whiteout of the parent through a link | `way/.wh...`: refused |
//! | whiteouts of other types | as a directory, a link, a hard link, a device and a FIFO: only the name counts |
//! | whiteout of a hidden name | a file is hidden, then a hard link to it made: refused |
//! | whiteout of a whiteout | `.wh..wh.x`: a name of AUFS, nothing |
//! | AUFS's books | `.wh..wh.plnk` and `.wh..wh.aufs`, and what is in them |
//! | hard link into AUFS's books | refused, for nothing is in them |
//! | overlay's attributes | each in both namespaces, in a file, a directory and the root, and the nested form |
//! | attributes in another tongue | libarchive's records are no attributes |
//! | an attribute without a name | nothing is set |
//! | an attribute that is too large | refused |
//! | set-uid through a hard link | the mode of a hard link's entry is no chmod of what it names |
//! | set-uid through a hard link to outside | refused |
//! | devices | made inside, with the mode given |
//! | a device in a link | made inside |
//! | a file over a directory over a file | each replaces what was there |
//! | a directory that is its own link | a link to itself: refused |
//! | links without end | forty links are followed, not more: refused |
//! | links that multiply | each link goes twice through the next: refused |
//! | a long target | 4,095 bytes are a link's limit |
//! | a longer target | 5,000 bytes: refused |
//! | a name of 4,096 bytes | of directories of 255 |
//! | a longer name | 5,000 bytes: refused |
//! | a component of 256 bytes | refused |
//! | a name with a zero byte | refused |
//! | a target with a zero byte | refused |
//! | a header with a zero byte in its name | the name ends there, as it does for all others |
//! | a negative size in base 256 | refused |
//! | the largest size | refused: the bytes end before it |
//! | PAX headers without end | refused |
//! | GNU long names without end | refused |
//! | a global header without end | refused |
//! | a GNU long name that leaves the root | refused |
//! | a PAX path that leaves the root | refused |
//! | a PAX link target that leaves the root | refused |
//! | times beyond all bounds | set as near as the filesystem can |
//! | every mode bit | only twelve are a mode |
//! | the root's mode | stays in the root |

use tar::EntryType::{Block, Char, Directory, Fifo, GNULongName, Link, Regular, Symlink, XGlobalHeader};

use crate::case::Check::{Gone, Leads, Mode, Same, Text};
use crate::case::{Case, applied, refused};
use crate::common::layer::{Layer, record};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = whiteouts();
    cases.extend(attributes());
    cases.extend(kinds());
    cases.extend(links());
    cases.extend(names());
    cases.extend(numbers());
    cases
}

fn whiteouts() -> Vec<Case> {
    let base = || Layer::new().dir("etc").file("etc/passwd", "inside");
    vec![
        applied("opaque through a link", |_| {
            let layer = Layer::new().file("way/.wh..wh..opq", "");
            layer.file("way/etc/.wh..wh..opq", "").file("way/new", "inside")
        })
        .on(base().symlink("way", "../../../../outside"))
        .shows(&[Text("outside/new", "inside"), Text("etc/passwd", "inside")]),
        applied("opaque through a link of the layer", |ways| {
            let layer = Layer::new().symlink("way", &ways.up).file("way/.wh..wh..opq", "");
            layer.file("way/.wh.secret", "").file("way/.wh.etc", "")
        })
        .on(base())
        .shows(&[Text("etc/passwd", "inside")]),
        applied("opaque of the root", |_| {
            Layer::new().file("new", "").file(".wh..wh..opq", "")
        })
        .on(base())
        .shows(&[Gone("etc"), Text("new", "")]),
        refused("whiteout alone", "whiteout of no file", |_| {
            Layer::new().file("etc/.wh.", "")
        })
        .on(base())
        .shows(&[Text("etc/passwd", "inside")]),
        refused("whiteout of the parent through a link", "whiteout of no file", |ways| {
            Layer::new().symlink("way", &ways.out).file("way/.wh...", "")
        }),
        applied("whiteouts of other types", |ways| {
            let victim = ways.out.as_bytes();
            Layer::new()
                .entry(Directory, b".wh.one", b"", 0o777, b"")
                .entry(Symlink, b".wh.two", victim, 0o777, b"")
                .entry(Link, b".wh.three", victim, 0o777, b"")
                .entry(Char, b".wh.four", b"", 0o777, b"")
                .entry(Fifo, b".wh.five", b"", 0o777, b"")
                .entry(Regular, b".wh.six", b"", 0o777, b"content")
        })
        .on(["one", "two", "three", "four", "five", "six"]
            .iter()
            .fold(base(), |base, name| base.file(name, "")))
        .shows(&[
            Gone("one"),
            Gone("two"),
            Gone("three"),
            Gone("four"),
            Gone("five"),
            Gone("six"),
            Text("etc/passwd", "inside"),
        ]),
        refused("whiteout of a hidden name", "does not exist", |_| {
            Layer::new().file("etc/.wh.passwd", "").hard_link("back", "etc/passwd")
        })
        .on(base())
        .shows(&[Gone("etc/passwd"), Gone("back")]),
        applied("whiteout of a whiteout", |_| {
            Layer::new().file("etc/.wh..wh.passwd", "")
        })
        .on(base())
        .shows(&[Text("etc/passwd", "inside")]),
        applied("AUFS's books", |ways| {
            Layer::new()
                .dir(".wh..wh.plnk")
                .file(".wh..wh.plnk/12.34", "x")
                .symlink(".wh..wh.aufs", &ways.out)
                .file(".wh..wh.aufs/secret", "evil")
                .symlink("etc/.wh..wh.orph", &ways.out)
                .hard_link(".wh..wh.plnk/1.2", &format!("{}/secret", ways.out))
        })
        .on(base())
        .shows(&[Gone(".wh..wh.plnk"), Gone(".wh..wh.aufs"), Gone("etc/.wh..wh.orph")]),
        refused("hard link into AUFS's books", "does not exist", |_| {
            let layer = Layer::new().file(".wh..wh.plnk/12.34", "x");
            layer.hard_link("f", ".wh..wh.plnk/12.34")
        }),
    ]
}

fn attributes() -> Vec<Case> {
    vec![
        applied("overlay's attributes", |_| {
            let mut layer = Layer::new();
            for space in ["trusted", "user"] {
                for name in [
                    "opaque",
                    "redirect",
                    "metacopy",
                    "origin",
                    "impure",
                    "nlink",
                    "upper",
                    "uuid",
                    "protattr",
                    "xwhiteouts",
                    "whiteout",
                    "overlay.opaque",
                    "overlay.whiteout",
                ] {
                    let key = format!("{space}.overlay.{name}");
                    layer = layer.xattr(&key, b"y").file(&format!("{space}-{name}"), "");
                    layer = layer.xattr(&key, b"/etc").dir("bin");
                    layer = layer.xattr(&key, b"x").dir(".");
                }
            }
            layer
        })
        .shows(&[Text("bin/su", "program"), Text("trusted-whiteout", "")]),
        applied("attributes in another tongue", |_| {
            let mut records = Vec::new();
            record(&mut records, "LIBARCHIVE.xattr.trusted.overlay.opaque", b"eQ==");
            record(&mut records, "RHT.security.selinux", b"evil");
            record(&mut records, "SCHILY.acl.access", b"user::rwx,user:evil:rwx");
            Layer::new().pax(&records).dir("bin")
        })
        .shows(&[Text("bin/su", "program")]),
        refused("an attribute without a name", "attribute", |_| {
            Layer::new().xattr("", b"v").file("f", "")
        }),
        refused("an attribute that is too large", "attribute", |_| {
            Layer::new().xattr("user.large", &[b'v'; 100_000]).file("f", "")
        }),
    ]
}

fn kinds() -> Vec<Case> {
    vec![
        applied("set-uid through a hard link", |_| {
            Layer::new().entry(Link, b"mine", b"bin/plain", 0o6777, b"")
        })
        .on(Layer::new().dir("bin").file("bin/plain", "program"))
        .shows(&[Mode("bin/plain", 0o644), Mode("mine", 0o644), Same("mine", "bin/plain")]),
        refused("set-uid through a hard link to outside", "does not exist", |ways| {
            let target = format!("{}/setuid", ways.out);
            Layer::new().entry(Link, b"mine", target.as_bytes(), 0o4755, b"")
        }),
        applied("devices", |_| {
            Layer::new()
                .entry(Char, b"dev/null", b"", 0o666, b"")
                .entry(Block, b"dev/disk", b"", 0o600, b"")
        })
        .shows(&[Mode("dev/null", 0o666), Mode("dev/disk", 0o600)]),
        applied("a device in a link", |ways| {
            let layer = Layer::new().symlink("way", &ways.out);
            layer
                .entry(Block, b"way/secret", b"", 0o666, b"")
                .entry(Fifo, b"way/dir", b"", 0o666, b"")
        })
        .shows(&[Mode("OUT/secret", 0o666), Mode("OUT/dir", 0o666)]),
        applied("a file over a directory over a file", |ways| {
            Layer::new()
                .file("x", "one")
                .dir("x")
                .file("x/y", "")
                .symlink("x", &ways.out)
                .dir("x")
                .file("x/secret", "two")
                .file("x", "three")
        })
        .shows(&[Text("x", "three")]),
    ]
}

fn links() -> Vec<Case> {
    vec![
        refused("a directory that is its own link", "too many symbolic links", |_| {
            Layer::new().symlink("loop", "loop").file("loop/f", "")
        }),
        refused("links without end", "too many symbolic links", |_| {
            let mut layer = Layer::new();
            for step in 0..50 {
                layer = layer.symlink(&format!("l{step}"), &format!("l{}", step + 1));
            }
            layer.file("l0/f", "")
        }),
        refused("links that multiply", "too many symbolic links", |_| {
            let mut layer = Layer::new().symlink("m30", ".");
            for step in 0..30 {
                let next = step + 1;
                layer = layer.symlink(&format!("m{step}"), &format!("m{next}/m{next}"));
            }
            layer.file("m0/f", "")
        }),
        applied("a long target", |_| Layer::new().symlink("l", &"a/".repeat(2047))),
        refused("a longer target", "limit", |_| {
            Layer::new().symlink("l", &"a/".repeat(2500))
        }),
    ]
}

fn names() -> Vec<Case> {
    vec![
        applied("a name of 4,096 bytes", |_| {
            let name = format!("{}/", "d".repeat(255)).repeat(16);
            assert_eq!(name.len(), 4096);
            Layer::new().dir(&name)
        }),
        refused("a longer name", "limit", |_| {
            Layer::new().file(&format!("{}/", "d".repeat(249)).repeat(20), "")
        }),
        refused("a component of 256 bytes", "longer than the filesystem allows", |_| {
            Layer::new().file(&"n".repeat(256), "")
        }),
        refused("a name with a zero byte", "zero byte", |_| {
            let mut records = Vec::new();
            record(&mut records, "path", b"f\0/../../x");
            Layer::new().pax(&records).file("f", "")
        }),
        refused("a target with a zero byte", "zero byte", |_| {
            let mut records = Vec::new();
            record(&mut records, "linkpath", b"f\0/../../x");
            Layer::new().pax(&records).symlink("f", "x")
        }),
        applied("a header with a zero byte in its name", |_| {
            Layer::new().entry(Regular, b"f\0/../../x", b"", 0o644, b"content")
        })
        .shows(&[Text("f", "content")]),
    ]
}

fn numbers() -> Vec<Case> {
    vec![
        refused("a negative size in base 256", "", |_| size_field(&[0xff; 12])),
        refused("the largest size", "", |_| size_field(b"77777777777\0")),
        refused("PAX headers without end", "", |_| {
            let mut records = Vec::new();
            record(&mut records, "comment", &vec![b'c'; 500_000]);
            (0..10).fold(Layer::new(), |layer, _| layer.pax(&records)).file("f", "")
        }),
        refused("GNU long names without end", "", |_| {
            let layer = Layer::new().raw(GNULongName, b"././@LongLink", b"", 0, 1 << 32, b"");
            layer.file("f", "")
        }),
        refused("a global header without end", "", |_| {
            Layer::new().raw(XGlobalHeader, b"pax", b"", 0, 1 << 32, b"")
        }),
        refused("a GNU long name that leaves the root", "leaves the root", |ways| {
            let name = format!("{}/secret\0", ways.up);
            let layer = Layer::new().raw(
                GNULongName,
                b"././@LongLink",
                b"",
                0,
                name.len() as u64,
                name.as_bytes(),
            );
            layer.file("innocent", "evil")
        }),
        refused("a PAX path that leaves the root", "leaves the root", |ways| {
            let mut records = Vec::new();
            record(&mut records, "path", format!("{}/secret", ways.up).as_bytes());
            Layer::new().pax(&records).file("innocent", "evil")
        }),
        refused("a PAX link target that leaves the root", "leaves the root", |ways| {
            let mut records = Vec::new();
            record(&mut records, "linkpath", format!("{}/secret", ways.up).as_bytes());
            Layer::new().pax(&records).hard_link("innocent", "bin/su")
        }),
        applied("times beyond all bounds", |_| {
            let mut layer = Layer::new();
            for (name, time) in [
                ("far", "9223372036854775807.999999999"),
                ("past", "-9223372036854775807.5"),
            ] {
                let mut records = Vec::new();
                record(&mut records, "mtime", time.as_bytes());
                layer = layer
                    .pax(&records)
                    .file(name, "")
                    .pax(&records)
                    .dir(&format!("{name}-dir"));
            }
            layer
        })
        .shows(&[Text("far", ""), Text("past", "")]),
        applied("every mode bit", |_| {
            let layer = Layer::new().entry(Regular, b"f", b"", 0o7_777_777, b"");
            layer.entry(Directory, b"d", b"", 0o7_777_777, b"")
        })
        .shows(&[Mode("f", 0o7777), Mode("d", 0o7777)]),
        applied("the root's mode", |_| {
            Layer::new().entry(Directory, b"./", b"", 0o7000, b"").symlink("s", "x")
        })
        .shows(&[Mode(".", 0o7000), Leads("s", "x")]),
    ]
}

/// A file whose header has these bytes where its size belongs.
fn size_field(size: &[u8; 12]) -> Layer {
    let mut header = tar::Header::new_gnu();
    header.set_path("f").unwrap();
    header.set_mode(0o644);
    header.as_mut_bytes()[124..136].copy_from_slice(size);
    header.set_cksum();
    let mut layer = Layer(header.as_bytes().to_vec());
    layer.0.extend([b'x'; 512]);
    layer
}
