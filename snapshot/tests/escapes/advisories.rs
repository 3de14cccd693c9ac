//! Published vulnerabilities of programs that unpack archives, each tried as it was told of.
//!
//! | case | whose, and what |
//! | --- | --- |
//! | CVE-2001-1267 | GNU tar: `..` in a name; the same CVE-2007-4559 (Python), CVE-2016-10173 (minitar), CVE-2018-1002200 (plexus-archiver), CVE-2019-10743 (archiver), CVE-2020-29529 (go-slug) |
//! | CVE-2002-0399 | GNU tar: `./..` and `/..` in a name |
//! | CVE-2006-6097 | GNU tar: entries of type `N` make symbolic links |
//! | CVE-2007-4131 | GNU tar: `//..` in a name |
//! | CVE-2014-6407 | Docker: a hard link through a symbolic link |
//! | CVE-2014-9356 | Docker: an absolute symbolic link as a directory |
//! | CVE-2015-2304 | libarchive: absolute names |
//! | CVE-2016-5418 | libarchive: a hard link with content of its own, written through what it names |
//! | CVE-2016-6321 | GNU tar: what stands before `..` is taken away, and the rest is another path |
//! | CVE-2017-14992 | Docker: a layer that makes much of little |
//! | CVE-2018-20834 | node-tar: a file takes the place of a hard link; the same CVE-2018-20990 (tar-rs) |
//! | CVE-2018-1000073 | RubyGems: a symbolic link up, and a file through it; the same CVE-2020-36193 (Archive_Tar) |
//! | CVE-2018-1002100 | kubectl cp: `..` in a name, down first |
//! | CVE-2019-1002101 | kubectl cp: a symbolic link, and a file of the same name below it |
//! | CVE-2019-11251 | kubectl cp: two symbolic links that lead out only together |
//! | CVE-2019-20907 | Python: a PAX record of no length, read for ever |
//! | CVE-2019-8320 | RubyGems: what is removed before a directory is made, through a link |
//! | CVE-2020-27833 | oc: a link to a link to the parent; the same CVE-2025-48387 (tar-fs) |
//! | CVE-2021-21272 | oras: hard links and symbolic links to absolute paths; the same CVE-2024-12905 (tar-fs) and CVE-2026-23745 (node-tar) |
//! | CVE-2021-23177 | libarchive: modes and attributes set at the end, through a link that came meanwhile; the same CVE-2021-31566 |
//! | CVE-2021-29136 | umoci: the root as a link |
//! | CVE-2021-29136 hard | umoci: the root as a hard link |
//! | CVE-2021-29136 file | umoci: the root as a file |
//! | CVE-2021-29136 fifo | umoci: the root as a FIFO |
//! | CVE-2021-32803 | node-tar: a directory that is known to be one becomes a link |
//! | CVE-2021-32804 | node-tar: several slashes before an absolute name |
//! | CVE-2021-37701 | node-tar: the same directory with a backslash |
//! | CVE-2021-37712 | node-tar: the same directory in another form of Unicode; the same CVE-2026-23950 |
//! | CVE-2021-38511 | tar-rs: directories made through a link |
//! | CVE-2022-2879 | Go: a PAX header without bounds |
//! | CVE-2022-48303 | GNU tar: a number in base 256 in a header of the oldest form |
//! | CVE-2023-37460 | plexus-archiver: a link to what is not there yet, and a file written through it |
//! | CVE-2023-39804 | GNU tar: the name of an attribute as long as a header allows |
//! | CVE-2024-12718 | Python: mode and time of `.` and of what is above |
//! | CVE-2024-28863 | node-tar: directories without end |
//! | CVE-2025-4138 | Python: links that are longer than a path may be when followed; the same CVE-2025-4517 |
//! | CVE-2025-4330 | Python: a hard link to a symbolic link, from another depth |
//! | CVE-2025-45582 | GNU tar: the link is in an earlier archive |
//! | CVE-2025-58183 | Go: a map of a sparse file without bounds |
//! | CVE-2025-59343 | tar-fs: a link to the parent's namesake |
//! | CVE-2025-62518 | tokio-tar: a PAX size, and a header that says none, hide entries in content |
//! | CVE-2025-8194 | Python: a negative size |
//! | CVE-2026-24842 | node-tar: a hard link's target told from its directory instead of the root |
//! | CVE-2026-26960 | node-tar: a hard link through a chain of links |
//! | CVE-2026-33055 | tar-rs: a PAX size, and a header that says another |
//! | CVE-2026-33056 | tar-rs: a link and a directory of the same name: the mode goes outside |
//! | CVE-2026-42574 | apko: directories and files through a link of an earlier package; the same CVE-2026-46703 (boxlite) |

use tar::EntryType::{Directory, Fifo, Link, Regular};

use crate::case::Check::{Apart, Gone, Leads, Mode, Text};
use crate::case::{Case, Ways, applied, refused};
use crate::common::layer::{Layer, record};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = until_2018();
    cases.extend(until_2020());
    cases.extend(of_2021());
    cases.extend(until_2024());
    cases.extend(of_2025());
    cases.extend(of_2026());
    cases
}

fn until_2018() -> Vec<Case> {
    vec![
        refused("CVE-2001-1267", "leaves the root", |ways| {
            Layer::new().file(&format!("{}/secret", ways.up), "evil")
        }),
        refused("CVE-2002-0399", "leaves the root", |ways| {
            Layer::new().file(&format!("./{}/secret", ways.up), "evil")
        }),
        refused("CVE-2006-6097", "type 'N'", |ways| {
            let names = format!("Symlink {} to way\n", ways.out);
            let layer = Layer::new().raw(
                tar::EntryType::new(b'N'),
                b"././@MaNgLeDnAmE",
                b"",
                0o644,
                names.len() as u64,
                names.as_bytes(),
            );
            layer.file("way/secret", "evil")
        })
        .shows(&[Gone("way")]),
        refused("CVE-2007-4131", "leaves the root", |ways| {
            Layer::new().file(&format!("bin//../{}/secret", ways.up), "evil")
        }),
        refused("CVE-2014-6407", "does not exist", |ways| {
            let layer = Layer::new().symlink("way", &ways.out);
            layer.hard_link("mine", "way/secret").file("mine", "evil")
        }),
        applied("CVE-2014-9356", |ways| {
            let layer = Layer::new().symlink("way", &ways.out);
            layer
                .file("way/secret", "inside")
                .dir("way/etc")
                .file("way/etc/passwd", "inside")
        })
        .shows(&[Text("OUT/secret", "inside"), Text("OUT/etc/passwd", "inside")]),
        applied("CVE-2015-2304", |ways| {
            Layer::new().file(&format!("{}/secret", ways.out), "inside")
        })
        .shows(&[Text("OUT/secret", "inside")]),
        refused("CVE-2016-5418", "checksum", |ways| {
            let layer = Layer::new().symlink("way", &format!("{}/secret", ways.out));
            layer.entry(Link, b"way2", b"way", 0o777, b"evil")
        }),
        refused("CVE-2016-6321", "leaves the root", |ways| {
            Layer::new().file(&format!("etc/{}/secret/../{0}/secret", ways.up), "evil")
        }),
        refused("CVE-2017-14992", "metadata exceeds limit", |_| {
            let mut records = Vec::new();
            record(&mut records, "comment", &vec![b'x'; 8 << 20]);
            Layer::new().pax(&records).file("f", "")
        }),
        refused("CVE-2018-20834", "does not exist", |ways| {
            Layer::new()
                .hard_link("inside", "bin/su")
                .file("inside", "replaced")
                .hard_link("outside", &format!("{}/secret", ways.out))
                .file("outside", "evil")
        })
        .shows(&[
            Text("bin/su", "program"),
            Text("inside", "replaced"),
            Apart("bin/su", "inside"),
        ]),
        applied("CVE-2018-1000073", |ways| {
            let layer = Layer::new().symlink("way", &ways.up);
            layer.file("way/secret", "inside")
        })
        .shows(&[Text("outside/secret", "inside")]),
        refused("CVE-2018-1002100", "leaves the root", |ways| {
            Layer::new()
                .dir("a/b")
                .file(&format!("a/b/../../{}/secret", ways.up), "evil")
        }),
    ]
}

fn until_2020() -> Vec<Case> {
    vec![
        applied("CVE-2019-1002101", |ways| {
            let layer = Layer::new().symlink("baz", &ways.out).dir("baz/etc");
            layer
                .file("baz/etc/passwd", "inside")
                .symlink("baz/etc/passwd", &ways.out)
        })
        .shows(&[Leads("OUT/etc/passwd", "OUT")]),
        applied("CVE-2019-11251", |ways| {
            let up = ways.up.trim_end_matches("outside");
            let layer = Layer::new().symlink("a", ".").symlink("a/up", up);
            layer.symlink("a/both", "up/outside").file("a/both/secret", "inside")
        })
        .shows(&[Text("outside/secret", "inside")]),
        refused("CVE-2019-20907", "", |_| Layer::new().pax(b"0 size=3\n").file("f", "")),
        applied("CVE-2019-8320", |ways| {
            let layer = Layer::new().symlink("lib", &ways.out).dir("lib/dir");
            layer
                .file("lib/dir", "in its place")
                .file("lib/.wh.etc", "")
                .dir("lib/secret")
        })
        .shows(&[Text("OUT/dir", "in its place")]),
        applied("CVE-2020-27833", |_| {
            let layer = Layer::new().dir("subdir").symlink("subdir/parent", "..");
            layer
                .symlink("subdir/parent/escapes", "..")
                .symlink("subdir/parent/twice", "escapes/..")
                .file("subdir/parent/twice/escaped", "inside")
        })
        .shows(&[Text("escaped", "inside"), Leads("escapes", "..")]),
    ]
}

fn of_2021() -> Vec<Case> {
    vec![
        refused("CVE-2021-21272", "does not exist", |ways| {
            let secret = format!("{}/secret", ways.out);
            Layer::new()
                .symlink("soft", &secret)
                .file("soft", "replaced")
                .hard_link("hard", &secret)
        })
        .shows(&[Text("soft", "replaced")]),
        applied("CVE-2021-23177", |ways| {
            let layer = Layer::new()
                .xattr("user.mark", b"evil")
                .entry(Directory, b"d", b"", 0o777, b"")
                .file("d/f", "");
            layer.symlink("d", &format!("{}/dir", ways.out)).file("last", "")
        })
        .shows(&[Leads("d", "OUT/dir")]),
        refused("CVE-2021-29136", "the root must be a directory", |ways| {
            Layer::new().symlink(".", &ways.out).file("secret", "evil")
        })
        .shows(&[Text("bin/su", "program"), Gone("secret")]),
        refused("CVE-2021-29136 hard", "", |ways| {
            Layer::new()
                .hard_link("/", &format!("{}/secret", ways.out))
                .file("secret", "evil")
        })
        .shows(&[Text("bin/su", "program")]),
        refused("CVE-2021-29136 file", "the root must be a directory", |_| {
            Layer::new().file(".", "evil")
        })
        .shows(&[Text("bin/su", "program")]),
        refused("CVE-2021-29136 fifo", "the root must be a directory", |_| {
            Layer::new().entry(Fifo, b"bin/..", b"", 0o666, b"")
        })
        .shows(&[Text("bin/su", "program")]),
        applied("CVE-2021-32803", |ways| {
            let layer = Layer::new().dir("d").file("d/f", "").symlink("d", &ways.out);
            layer.file("d/secret", "inside")
        })
        .shows(&[Leads("d", "OUT"), Text("OUT/secret", "inside")]),
        applied("CVE-2021-32804", |ways| {
            Layer::new().file(&format!("////{}/secret", ways.out), "inside")
        })
        .shows(&[Text("OUT/secret", "inside")]),
        applied("CVE-2021-37701", |ways| {
            let layer = Layer::new().dir("foo").symlink("foo\\", &ways.out);
            layer.file("foo\\/secret", "inside").file("..\\secret", "a name")
        })
        .shows(&[Text("OUT/secret", "inside"), Text("..\\secret", "a name")]),
        applied("CVE-2021-37712", |ways| {
            let layer = Layer::new().dir("caf\u{e9}").symlink("cafe\u{301}", &ways.out);
            layer.file("caf\u{e9}/secret", "inside").symlink("CAF\u{c9}", &ways.out)
        })
        .shows(&[Text("caf\u{e9}/secret", "inside"), Gone("OUT/secret")]),
        applied("CVE-2021-38511", |ways| {
            let layer = Layer::new().symlink("way", &ways.out).dir("way/new/deeper");
            layer.dir("way/../new")
        })
        .shows(&[Mode("new", 0o755), Mode("OUT/new/deeper", 0o755)]),
    ]
}

fn until_2024() -> Vec<Case> {
    vec![
        refused("CVE-2022-2879", "metadata exceeds limit", |_| {
            Layer::new().raw(tar::EntryType::XHeader, b"pax", b"", 0, u64::from(u32::MAX), b"")
        }),
        applied("CVE-2022-48303", |_| {
            let mut header = tar::Header::new_old();
            header.set_path("oldest").unwrap();
            header.set_size(0);
            header.as_mut_bytes()[136..148].fill(0xff);
            header.set_cksum();
            Layer(header.as_bytes().to_vec())
        })
        .shows(&[Text("oldest", "")]),
        applied("CVE-2023-37460", |ways| {
            let layer = Layer::new().symlink("f", &format!("{}/new", ways.out));
            layer.file("f", "in its place")
        })
        .shows(&[Text("f", "in its place")]),
        refused("CVE-2023-39804", "attribute", |_| {
            Layer::new()
                .xattr(&format!("user.{}", "n".repeat(500_000)), b"v")
                .file("f", "")
        }),
        refused("CVE-2024-12718", "leaves the root", |_| {
            Layer::new()
                .entry(Directory, b".", b"", 0o711, b"")
                .entry(Directory, b"..", b"", 0o777, b"")
        })
        .shows(&[Mode(".", 0o711)]),
        refused("CVE-2024-28863", "deeper than", |_| {
            Layer::new().file(&"d/".repeat(1500), "")
        }),
    ]
}

fn of_2025() -> Vec<Case> {
    vec![
        applied("CVE-2025-4138", long_way),
        applied("CVE-2025-4330", |ways| {
            let layer = Layer::new().symlink("a/b/c/d/e/link", &ways.up);
            layer.hard_link("link", "a/b/c/d/e/link").file("link/secret", "inside")
        })
        .shows(&[Text("outside/secret", "inside")]),
        applied("CVE-2025-45582", |_| {
            Layer::new()
                .file("way/secret", "inside")
                .file("way/.wh.etc", "")
                .dir("up/dir")
        })
        .on(Layer::new()
            .symlink("way", "../../../../../../outside")
            .symlink("up", "way"))
        .shows(&[Text("outside/secret", "inside")]),
        refused("CVE-2025-58183", "sparse", |_| {
            let mut map = String::from("200001\n");
            for piece in 0..200_001 {
                map.push_str(&format!("{}\n1\n", piece * 2));
            }
            let mut records = Vec::new();
            for (key, value) in [("major", "1"), ("minor", "0"), ("name", "f"), ("realsize", "400002")] {
                record(&mut records, &format!("GNU.sparse.{key}"), value.as_bytes());
            }
            Layer::new().pax(&records).file("GNUSparseFile.0/f", &map)
        }),
        applied("CVE-2025-59343", |ways| {
            // The directory beside the root has its name as a beginning.
            let layer = Layer::new()
                .symlink("way", "../fs-beside")
                .symlink("way2", &format!("{}-beside", ways.out));
            layer.file("way/f", "inside").file("way2/f", "inside")
        })
        .shows(&[Text("fs-beside/f", "inside"), Text("OUT-beside/f", "inside")]),
        applied("CVE-2025-62518", |_| sizes(1024, 0)).shows(&[Gone("smuggled"), Text("after", "")]),
        refused("CVE-2025-8194", "is not a number", |_| {
            let mut records = Vec::new();
            record(&mut records, "size", b"-1");
            Layer::new().pax(&records).file("f", "")
        }),
    ]
}

fn of_2026() -> Vec<Case> {
    vec![
        refused("CVE-2026-24842", "leaves the root", |ways| {
            Layer::new()
                .dir("a/b/c")
                .hard_link("a/b/c/x", &format!("{}/secret", ways.up))
        }),
        refused("CVE-2026-26960", "does not exist", |ways| {
            let up = ways.up.trim_end_matches("/outside");
            let layer = Layer::new()
                .dir("a/b")
                .symlink("a/b/up", "../..")
                .symlink("a/b/escape", up);
            layer.hard_link("x", "a/b/escape/outside/secret").file("x", "evil")
        }),
        applied("CVE-2026-33055", |_| sizes(1024, 512)).shows(&[Gone("smuggled"), Text("after", "")]),
        applied("CVE-2026-33056", |ways| {
            let layer = Layer::new().symlink("d", &format!("{}/dir", ways.out));
            layer.entry(Directory, b"d", b"", 0o1777, b"")
        })
        .shows(&[Mode("d", 0o1777)]),
        applied("CVE-2026-42574", |_| {
            Layer::new()
                .entry(Directory, b"way", b"", 0o700, b"")
                .file("way/new/f", "inside")
        })
        .on(Layer::new().symlink("way", "/proc/self/cwd"))
        .shows(&[Text("way/new/f", "inside"), Mode("way", 0o700)]),
    ]
}

/// A directory of 4,000 bytes of names behind 16 short links, and a link that goes up from its end: those who resolve it with a buffer of `PATH_MAX` bytes
/// lose the end of it.
fn long_way(ways: &Ways) -> Layer {
    let name = "d".repeat(247);
    let mut layer = Layer::new();
    let mut path = String::new();
    for step in 'a'..='p' {
        layer = layer
            .dir(&format!("{path}{name}"))
            .symlink(&format!("{path}{step}"), &name);
        path = format!("{path}{step}/");
    }
    layer
        .symlink(&format!("{path}{}", "l".repeat(254)), &"../".repeat(16))
        .symlink("escape", &format!("{path}{}/{}", "l".repeat(254), ways.up))
        .file("escape/secret", "evil")
        .hard_link("flag", "escape/secret")
}

/// A file of `pax` bytes by its PAX record and `header` bytes by its header, whose content is an archive.
fn sizes(pax: u64, header: u64) -> Layer {
    let mut records = Vec::new();
    record(&mut records, "size", pax.to_string().as_bytes());
    let inner = Layer::new().symlink("smuggled", "/etc").dir("smuggled");
    assert_eq!(inner.0.len() as u64, pax);
    Layer::new()
        .pax(&records)
        .raw(Regular, b"outer", b"", 0o644, header, &inner.0)
        .file("after", "")
}
