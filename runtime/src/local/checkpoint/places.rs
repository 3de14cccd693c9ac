//! Mount points for a container that is restored: CRIU mounts, and makes none.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind_recursive, mount_change, move_mount,
    open_tree, unmount,
};

use super::outside::{Root, is_bind};
use crate::Result;
use crate::host::io_error;

/// Puts the calling *thread* into a mount namespace of its own, which ends with it and with CRIU: the host sees nothing of its mounts.
pub(super) fn enter_own_namespace() -> Result<()> {
    longshore_linux::unshare(longshore_linux::Namespaces::MOUNT)
        .and_then(|()| mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC))
        .map_err(io_error("make a mount namespace to restore from"))
}

/// Puts the root filesystem at a place that is a mount, as CRIU wants it.
pub(super) fn bind_root(rootfs: &Path, at: &Path) -> Result<()> {
    let fail = || format!("bind {} to {}", rootfs.display(), at.display());
    fs::create_dir(at).map_err(io_error(fail()))?;
    mount_bind_recursive(rootfs, at).map_err(io_error(fail()))
}

/// Makes the mount points that the first start made. What is bound is mounted on the way, for the points inside it, and unmounted
/// again.
pub(super) fn make(root: &Root, spec: &Spec, bundle: &Path) -> Result<()> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mut mounted = Vec::new();
    let made = mounts
        .iter()
        .try_for_each(|mount| make_one(root, mounts, mount, bundle, &mut mounted));
    for place in mounted.iter().rev() {
        // It is in a namespace that ends soon; one that stays would only hide what is below.
        if let Ok(place) = open_inside(root.dir(), place) {
            let _ = unmount(format!("/proc/self/fd/{}", place.as_raw_fd()), UnmountFlags::DETACH);
        }
    }
    made
}

fn make_one(root: &Root, all: &[Mount], mount: &Mount, bundle: &Path, mounted: &mut Vec<PathBuf>) -> Result<()> {
    let at = mount.destination();
    let is_on_tmpfs = all.iter().any(|other| {
        other.typ().as_deref() == Some("tmpfs") && other.destination() != at && at.starts_with(other.destination())
    });
    // What is on a tmpfs is in the images, and so is the tree of control groups.
    if is_on_tmpfs || mount.typ().as_deref() == Some("cgroup") {
        return Ok(());
    }
    let fail = || format!("make the mount point {} of the container", at.display());
    if !is_bind(mount) {
        return make_point(root.dir(), at, Point::Directory)
            .map(drop)
            .map_err(io_error(fail()));
    }
    let source = bundle.join(mount.source().clone().unwrap_or_default());
    let found = fs::metadata(&source).map_err(io_error(format!("look at {}", source.display())))?;
    let kind = if found.is_dir() { Point::Directory } else { Point::File };
    let point = make_point(root.dir(), at, kind).map_err(io_error(fail()))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let bound = open_tree(CWD, &source, flags).and_then(|tree| {
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree.as_fd(), "", point.as_fd(), "", empty)
    });
    bound.map_err(io_error(format!("bind {} to {}", source.display(), at.display())))?;
    mounted.push(at.clone());
    Ok(())
}

/// What a mount point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Directory,
    File,
}

fn open_inside(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)
}

/// Opens a path inside the root, component by component, and makes what is missing.
fn make_point(root: &OwnedFd, path: &Path, kind: Point) -> Result<OwnedFd, Errno> {
    let parts: Vec<_> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    let mut reached = PathBuf::from("/");
    for (i, part) in parts.iter().enumerate() {
        let parent = open_inside(root, &reached)?;
        reached.push(part);
        match open_inside(root, &reached) {
            Err(Errno::NOENT) => {}
            found => {
                found?;
                continue;
            }
        }
        let name = part.as_os_str();
        if i + 1 == parts.len() && kind == Point::File {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&parent, name, flags, Mode::from_raw_mode(0o755)).map(drop)?;
        } else {
            mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        }
    }
    open_inside(root, &reached)
}

/// For a thread that must not go on in this program's own namespace.
pub(super) fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new()
            .name("longshore-restore".into())
            .spawn_scoped(scope, work);
        match spawned.map_err(io_error("start the thread that restores"))?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_made_inside_whatever_links_there_are() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path().join("root");
        fs::create_dir_all(root.join("real")).expect("made");
        std::os::unix::fs::symlink("/real", root.join("link")).expect("linked");
        std::os::unix::fs::symlink("../../../..", root.join("out")).expect("linked");
        let opened = Root::open(&root).expect("it is there");
        make_point(opened.dir(), Path::new("/link/a/file"), Point::File).expect("made");
        assert!(root.join("real/a/file").is_file());
        make_point(opened.dir(), Path::new("/out/b"), Point::Directory).expect("made");
        assert!(root.join("b").is_dir(), "the way out of the root ends in the root");
        make_point(opened.dir(), Path::new("/out/b"), Point::Directory).expect("it is there");
    }
}
