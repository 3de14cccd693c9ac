use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::plan::paths::in_root;

/// A root, and a directory beside it that must stay as it is.
struct Place {
    dir: tempfile::TempDir,
    root: OwnedFd,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("root")).expect("a directory");
        fs::create_dir(dir.path().join("outside")).expect("a directory");
        let root = fs::File::open(dir.path().join("root")).expect("a directory").into();
        Self { dir, root }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("root").join(inside)
    }

    fn link(&self, at: &str, target: &str) {
        let at = self.path(at);
        fs::create_dir_all(at.parent().expect("it is in the root")).expect("directories");
        symlink(target, at).expect("a link");
    }

    /// Makes a mount point; where it is, as the kernel sees it.
    fn make(&self, path: &str, last: Last) -> Result<PathBuf, Failure> {
        let point = point(&self.root, &in_root("test", Path::new(path)).expect("a path"), last)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&point.fd);
        let whole = fs::read_link(format!("/proc/self/fd/{number}")).expect("a link");
        assert_eq!(
            fs::read_dir(self.dir.path().join("outside"))
                .expect("a directory")
                .count(),
            0
        );
        let top = fs::canonicalize(self.path("")).expect("a directory");
        Ok(whole.strip_prefix(top).expect("it is in the root").to_owned())
    }
}

#[test]
fn what_is_missing_is_made_where_the_links_lead() {
    for (links, path, expected) in [
        (&[][..], "/a/b/c", "a/b/c"),
        (
            &[("jump", "/tmp/foo/bar"), ("etc/hosts", "/jump/baz/hosts")][..],
            "/etc/hosts",
            "tmp/foo/bar/baz/hosts",
        ),
        (&[("etc/hosts", "/tmp/hosts")][..], "/etc/hosts", "tmp/hosts"),
        (&[("conf", "/real/conf")][..], "/conf/stack", "real/conf/stack"),
        (&[("a/b/c", "../../../../../x/./y//z/")][..], "/a/b/c/d", "x/y/z/d"),
        (&[("a", "b"), ("b", "c"), ("c", "/d/e")][..], "/a/f", "d/e/f"),
        (&[("up", "../../outside")][..], "/up/x", "outside/x"),
    ] {
        for last in [Last::Directory, Last::File] {
            let place = Place::new();
            for (at, target) in links {
                place.link(at, target);
            }
            assert_eq!(
                place.make(path, last).expect("it is made"),
                Path::new(expected),
                "{path}"
            );
            let made = fs::symlink_metadata(place.path(expected)).expect("it is there");
            assert_eq!(made.is_dir(), last == Last::Directory, "{path}");
        }
    }
}

#[test]
fn absolute_links_to_the_outside_stay_inside() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    let outside = outside.to_str().expect("text");
    place.link("x", outside);
    let made = place.make("/x/y", Last::Directory).expect("it is made");
    assert_eq!(Path::new("/").join(made), Path::new(outside).join("y"));
}

#[test]
fn links_that_go_round_or_into_files_are_errors() {
    let place = Place::new();
    place.link("a", "b/x");
    place.link("b", "a");
    fs::write(place.path("file"), "").expect("a file");
    for (path, errno) in [("/a", Errno::LOOP), ("/a/b", Errno::LOOP), ("/file/x", Errno::NOTDIR)] {
        let failure = place.make(path, Last::Directory).expect_err("it leads nowhere");
        assert_eq!(failure.errno, errno, "{path}");
    }
    place.link("long", &format!("/{}", "x".repeat(300)));
    let failure = place.make("/long", Last::File).expect_err("no name is so long");
    assert_eq!(failure.errno, Errno::NAMETOOLONG);
    for i in 0..5 {
        place.link(&format!("grow{i}"), &format!("{}grow{}", "./".repeat(1000), i + 1));
    }
    let failure = place
        .make(&format!("/grow0/{}", "x/".repeat(1500)), Last::Directory)
        .expect_err("it grows too long");
    assert_eq!(failure.errno, Errno::NAMETOOLONG);
}

#[test]
fn what_is_there_is_told_from_what_was_made() {
    let place = Place::new();
    fs::create_dir(place.path("there")).expect("a directory");
    place.link("link", "there");
    for (path, found) in [("/there", true), ("/link", true), ("/missing", false)] {
        let path = in_root("test", Path::new(path)).expect("a path");
        assert_eq!(
            point(&place.root, &path, Last::Directory).expect("it opens").found,
            found
        );
    }
}

#[test]
fn a_setgid_directory_hands_its_bit_down() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    fs::create_dir(place.path("setgid")).expect("a directory");
    fs::set_permissions(place.path("setgid"), fs::Permissions::from_mode(0o7755)).expect("permissions");
    place.make("/setgid/a/b", Last::Directory).expect("it is made");
    for made in ["setgid/a", "setgid/a/b"] {
        let mode = fs::metadata(place.path(made))
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7000, 0o2000, "{made}: {mode:o}");
    }
}

#[test]
fn a_directory_itself_is_not_found_through_links() {
    let place = Place::new();
    fs::create_dir(place.path("real")).expect("a directory");
    place.link("proc", "real");
    place.link("dangling", "nowhere");
    place.link("x", "real");
    for path in ["/proc", "/dangling", "/x/y"] {
        let at = in_root("test", Path::new(path)).expect("a path");
        let failure = directory_itself(&place.root, &at).expect_err("a link leads there");
        assert_eq!((failure.call, failure.errno), (Call::NotItself, Errno::LOOP), "{path}");
    }
    assert!(!place.path("nowhere").exists() && !place.path("real/y").exists());
    let at = in_root("test", Path::new("/new/proc")).expect("a path");
    directory_itself(&place.root, &at).expect("it is made");
    assert!(place.path("new/proc").is_dir());
    assert_eq!(at.whole().to_bytes(), Path::new("new/proc").as_os_str().as_bytes());
}
