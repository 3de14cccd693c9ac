//! The cases of containerd's `TestBreakouts` (`pkg/archive/tar_test.go`), by its names.
//!
//! Some are refused here that containerd lets pass, all of no sane image: names and targets whose `..` leave the root (containerd stops at the root), and a way that goes
//! up from a directory that is not there (the kernel does not either, but containerd counts names).
//!
//! | case | what |
//! | --- | --- |
//! | SymlinkAbsolute | a link to a directory as the way to a file |
//! | SymlinkUpAndOut | the same with `..` in it |
//! | SymlinkMultipleAbsolute | a link to a link |
//! | SymlinkMultipleRelative | the same, relative |
//! | SymlinkEmptyFile | a file is emptied through a link |
//! | HardlinkRelative | the target of a hard link goes through a link that leaves the root |
//! | HardlinkDownAndOut | the same, down first |
//! | HardlinkAbsolute | the same, absolute |
//! | HardlinkRelativeLong | the same, far up |
//! | HardlinkRelativeUpAndOut | the same, over a directory that is not there: refused |
//! | HardlinkDirectRelative | a hard link's target is above the root: refused |
//! | HardlinkDirectAbsolute | a hard link's target is absolute |
//! | SymlinkParentDirectory | a link named `..`: refused |
//! | SymlinkEmptyFilename | a link without a name: refused |
//! | SymlinkParentRelative | a link named `localetc/sub/..` |
//! | SymlinkSlashEnded | a directory with a slash at its end, a hard link in it |
//! | SymlinkOverrideDirectory | a link takes a directory's place |
//! | SymlinkOverrideDirectoryRelative | the same, relative |
//! | DirectoryOverrideSymlink | a directory takes a link's place |
//! | DirectoryOverrideSymlinkAndHardlink | and what is made in it is not what the link led to |
//! | WhiteoutRootParent | `.wh...` in the root: refused |
//! | WhiteoutParent | `.wh...` in a directory: refused |
//! | WhiteoutRoot | `.wh..` in the root: refused |
//! | WhiteoutCurrentDirectory | `.wh..` in a directory: refused |
//! | WhiteoutSymlink | a link is hidden, not what it leads to |
//! | WhiteoutSymlinkPath | a whiteout through a link, inside |
//! | WhiteoutDirectoryName | a directory whose name is that of a whiteout |
//! | WhiteoutDeadSymlinkParent | a whiteout through a link to nothing |
//! | WhiteoutRelativePath | `dne/../.wh.etc` |
//! | SymlinkOverridePath | a directory becomes a link to the root and a directory again |
//! | HardlinkSymlinkBeforeCreateTarget | a hard link to a link whose target comes later |
//! | HardlinkSymlinkRelative | a hard link to a link |
//! | HardlinkSymlinkAbsolute | the same, absolute |
//! | HardlinkSymlinkChmod | a hard link to a link, by which a file outside would get another mode (CVE-2021-32760) |

use tar::EntryType::{Directory, Link};

use crate::case::Check::{Apart, Gone, Leads, Same, Text};
use crate::case::{Case, applied, refused};
use crate::common::layer::Layer;

fn etc() -> Layer {
    Layer::new()
        .entry(Directory, b"etc", b"", 0o770, b"")
        .file("/etc/passwd", "inside")
}

fn all_users() -> Layer {
    Layer::new().dir("/etc/").file("/etc/passwd", "all users")
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = symlinks();
    cases.extend(hard_links());
    cases.extend(replacing());
    cases.extend(whiteouts());
    cases.extend(links_to_links());
    cases
}

fn symlinks() -> Vec<Case> {
    let unbroken = [Text("etc/unbroken", "unbroken")];
    vec![
        applied("SymlinkAbsolute", |_| {
            let layer = Layer::new().dir("etc").symlink("localetc", "/etc");
            layer.file("/localetc/unbroken", "unbroken")
        })
        .shows(&unbroken),
        applied("SymlinkUpAndOut", |_| {
            let layer = Layer::new().dir("etc").dir("dummy");
            layer
                .symlink("localetc", "/dummy/../etc")
                .file("/localetc/unbroken", "unbroken")
        })
        .shows(&unbroken),
        applied("SymlinkMultipleAbsolute", |_| {
            let layer = Layer::new().dir("etc").dir("dummy").symlink("/dummy/etc", "/etc");
            layer
                .symlink("localetc", "/dummy/etc")
                .file("/dummy/etc/unbroken", "unbroken")
        })
        .shows(&unbroken),
        applied("SymlinkMultipleRelative", |_| {
            let layer = Layer::new().dir("etc").dir("dummy").symlink("/dummy/etc", "/etc");
            layer
                .symlink("localetc", "./dummy/etc")
                .file("/dummy/etc/unbroken", "unbroken")
        })
        .shows(&unbroken),
        applied("SymlinkEmptyFile", |_| {
            let layer = Layer::new().dir("etc").file("etc/emptied", "notempty");
            layer.symlink("localetc", "/etc").file("/localetc/emptied", "")
        })
        .shows(&[Text("etc/emptied", "")]),
    ]
}

fn hard_links() -> Vec<Case> {
    let mine = [Same("breakouts/mypasswd", "etc/passwd")];
    let local = [Same("localpasswd", "etc/passwd"), Text("localpasswd", "inside")];
    let in_local = [Same("localetc/localpasswd", "etc/passwd")];
    vec![
        applied("HardlinkRelative", |_| {
            let layer = etc().dir("breakouts").symlink("breakouts/d1", "../../etc");
            layer.hard_link("breakouts/mypasswd", "/breakouts/d1/passwd")
        })
        .shows(&mine),
        applied("HardlinkDownAndOut", |_| {
            let layer = etc().dir("breakouts").dir("downandout");
            layer
                .symlink("breakouts/d1", "../downandout/../../etc")
                .hard_link("breakouts/mypasswd", "/breakouts/d1/passwd")
        })
        .shows(&mine),
        applied("HardlinkAbsolute", |_| {
            etc()
                .symlink("localetc", "/etc")
                .hard_link("localpasswd", "/localetc/passwd")
        })
        .shows(&local),
        applied("HardlinkRelativeLong", |_| {
            etc()
                .symlink("localetc", "../../../../../../../etc")
                .hard_link("localpasswd", "/localetc/passwd")
        })
        .shows(&local),
        refused("HardlinkRelativeUpAndOut", "does not exist", |_| {
            etc()
                .symlink("localetc", "upandout/../../../etc")
                .hard_link("localpasswd", "/localetc/passwd")
        }),
        refused("HardlinkDirectRelative", "leaves the root", |_| {
            etc().hard_link("localpasswd", "../../../../../etc/passwd")
        }),
        applied("HardlinkDirectAbsolute", |_| {
            etc().hard_link("localpasswd", "/etc/passwd")
        })
        .shows(&local),
        refused("SymlinkParentDirectory", "leaves the root", |_| {
            etc().symlink("..", "/etc/").hard_link("localpasswd", "/etc/passwd")
        }),
        refused("SymlinkEmptyFilename", "", |_| {
            etc().symlink("", "/etc/").hard_link("localpasswd", "/etc/passwd")
        }),
        applied("SymlinkParentRelative", |_| {
            let layer = etc().symlink("localetc/sub/..", "/etc/");
            layer.hard_link("/localetc/localpasswd", "/etc/passwd")
        })
        .shows(&in_local),
        applied("SymlinkSlashEnded", |_| {
            etc().dir("localetc/").hard_link("/localetc/localpasswd", "/etc/passwd")
        })
        .shows(&in_local),
    ]
}

fn replacing() -> Vec<Case> {
    let in_local = [Same("localetc/localpasswd", "etc/passwd")];
    vec![
        applied("SymlinkOverrideDirectory", |_| {
            let layer = Layer::new().symlink("localetc", "/etc");
            layer.hard_link("/localetc/localpasswd", "/etc/passwd")
        })
        .on(etc().dir("/localetc/"))
        .shows(&in_local),
        applied("SymlinkOverrideDirectoryRelative", |_| {
            let layer = Layer::new().symlink("localetc", "../../etc");
            layer.hard_link("/localetc/localpasswd", "/etc/passwd")
        })
        .on(etc().dir("/localetc/"))
        .shows(&in_local),
        applied("DirectoryOverrideSymlink", |_| {
            let layer = Layer::new().dir("/localetc/");
            layer.hard_link("/localetc/localpasswd", "/etc/passwd")
        })
        .on(etc().symlink("localetc", "/etc"))
        .shows(&in_local),
        applied("DirectoryOverrideSymlinkAndHardlink", |_| {
            let layer = Layer::new().dir("/localetc/");
            layer.file("/localetc/localpasswd", "different")
        })
        .on(etc()
            .symlink("localetc", "etc")
            .hard_link("/localetc/localpasswd", "/etc/passwd"))
        .shows(&[
            Apart("localetc/localpasswd", "etc/passwd"),
            Text("etc/passwd", "inside"),
        ]),
    ]
}

fn whiteouts() -> Vec<Case> {
    let whole = [Text("etc/passwd", "all users")];
    let with_link = || all_users().symlink("localetc", "/etc");
    let with_victim = || with_link().file("/etc/whitedout", "ahhhh whiteout");
    vec![
        refused("WhiteoutRootParent", "whiteout of no file", |_| {
            Layer::new().file(".wh...", "")
        })
        .on(all_users())
        .shows(&whole),
        refused("WhiteoutParent", "whiteout of no file", |_| {
            Layer::new().file("etc/.wh...", "")
        })
        .on(all_users())
        .shows(&whole),
        refused("WhiteoutRoot", "whiteout of no file", |_| {
            Layer::new().file(".wh..", "")
        })
        .on(all_users())
        .shows(&whole),
        refused("WhiteoutCurrentDirectory", "whiteout of no file", |_| {
            Layer::new().file("etc/.wh..", "")
        })
        .on(all_users())
        .shows(&whole),
        applied("WhiteoutSymlink", |_| Layer::new().file(".wh.localetc", ""))
            .on(with_link())
            .shows(&[Text("etc/passwd", "all users"), Gone("localetc")]),
        applied("WhiteoutSymlinkPath", |_| {
            Layer::new().file("localetc/.wh.whitedout", "")
        })
        .on(with_victim())
        .shows(&[Text("etc/passwd", "all users"), Gone("etc/whitedout")]),
        applied("WhiteoutDirectoryName", |_| {
            Layer::new().file(".wh.etc/somefile", "non-empty")
        })
        .on(with_victim())
        .shows(&[Text("etc/passwd", "all users"), Text(".wh.etc/somefile", "non-empty")]),
        applied("WhiteoutDeadSymlinkParent", |_| {
            Layer::new().file("localetc/.wh.etc", "")
        })
        .on(all_users().symlink("localetc", "/dne"))
        .shows(&whole),
        applied("WhiteoutRelativePath", |_| Layer::new().file("dne/../.wh.etc", ""))
            .on(all_users().symlink("localetc", "/dne"))
            .shows(&[Gone("etc/passwd")]),
    ]
}

fn links_to_links() -> Vec<Case> {
    vec![
        applied("SymlinkOverridePath", |ways| {
            let name = format!("foo{}/breakout", ways.out);
            let layer = Layer::new().dir("foo").file(&name, "first").symlink("foo", "/");
            layer.file(&name, "through the link").dir("foo").file(&name, "last")
        })
        .shows(&[
            Text("fooOUT/breakout", "last"),
            Text("OUT/breakout", "through the link"),
        ]),
        applied("HardlinkSymlinkBeforeCreateTarget", |_| {
            let layer = Layer::new().entry(Directory, b"etc", b"", 0o770, b"");
            layer
                .symlink("localpasswd", "/etc/passwd")
                .hard_link("localpasswd-dup", "localpasswd")
                .file("/etc/passwd", "after")
        })
        .shows(&[Same("localpasswd-dup", "etc/passwd")]),
        applied("HardlinkSymlinkRelative", |_| {
            etc()
                .symlink("passwdlink", "../../../../../etc/passwd")
                .hard_link("localpasswd", "/passwdlink")
        })
        .shows(&[
            Leads("localpasswd", "../../../../../etc/passwd"),
            Same("localpasswd", "etc/passwd"),
        ]),
        applied("HardlinkSymlinkAbsolute", |_| {
            etc()
                .symlink("passwdlink", "/etc/passwd")
                .hard_link("localpasswd", "/passwdlink")
        })
        .shows(&[Leads("localpasswd", "/etc/passwd"), Same("localpasswd", "etc/passwd")]),
        applied("HardlinkSymlinkChmod", |ways| {
            let link = format!("{}/dir/file", ways.out);
            Layer::new().symlink(&link, &format!("{}/secret", ways.out)).entry(
                Link,
                b"sketchylink",
                link.as_bytes(),
                0o777,
                b"",
            )
        })
        .shows(&[Leads("sketchylink", "OUT/secret")]),
    ]
}
