//! Mounts: made detached, changed, and attached by descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use longshore_linux::{AttrChange, Depth, MountAttr, Propagation, mount_setattr};
use rustix::fs::{CWD, FileType, OFlags, fstat, fstatfs, major, minor};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};

use super::report::{At, Call, Failure};
use super::resolve::{Last, Point, directory, directory_itself, file, is_directory, open_in_root, point};
use crate::plan::op::{FsParam, InRoot, MountOp, Source, Target};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// Four octal digits and the end.
const MODE: usize = 5;

/// Makes a mount that is attached to nothing. Also the host calls this, for sources that the child can't reach.
pub(crate) fn make(source: &Source, attr: MountAttr) -> Result<OwnedFd, Failure> {
    match source {
        Source::Fs {
            fs_type,
            params,
            fallback,
        } => match new_filesystem(fs_type, None, params, attr) {
            Err(Failure { errno: Errno::PERM, .. }) if fallback.is_some() => {
                let path = fallback.as_deref().unwrap_or_default();
                let tree = bind(path, Depth::Tree)?;
                let change = AttrChange {
                    set: attr,
                    ..AttrChange::default()
                };
                mount_setattr(&tree, c"", Depth::Tree, change).at(Call::Attribute)?;
                Ok(tree)
            }
            answer => answer,
        },
        Source::Legacy { fs_type, source, data } => by_path(fs_type, source, data),
        Source::Bind { path, depth } => bind(path, *depth),
        Source::Inside { .. } | Source::Detached(_) => Err(Errno::INVAL).at(Call::OpenSource),
    }
}

/// A copy of what a descriptor names, and of the mounts below it.
fn copy(fd: impl AsFd, depth: Depth) -> Result<OwnedFd, Failure> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(fd, c"", flags).at(Call::OpenSource)
}

fn bind(path: &CStr, depth: Depth) -> Result<OwnedFd, Failure> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if depth == Depth::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).at(Call::OpenSource)
}

fn new_filesystem(
    fs_type: &CStr,
    mode: Option<&CStr>,
    params: &[FsParam],
    attr: MountAttr,
) -> Result<OwnedFd, Failure> {
    let fs = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC).at(Call::FsOpen)?;
    if let Some(mode) = mode {
        fsconfig_set_string(&fs, c"mode", mode).at(Call::FsOption)?;
    }
    for FsParam { key, value } in params {
        match value {
            Some(value) => fsconfig_set_string(&fs, key.as_c_str(), value.as_c_str()),
            None => fsconfig_set_flag(&fs, key.as_c_str()),
        }
        .at(Call::FsOption)?;
    }
    fsconfig_create(&fs).at(Call::FsCreate)?;
    let attr = MountAttrFlags::from_bits_retain(attr.bits() as u32);
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attr).at(Call::FsMount)
}

/// By mount(2), over the root of a namespace that is the child's own. `/` itself stays the directory below; `/..` is what
/// lies on top of it.
fn by_path(fs_type: &CStr, source: &CStr, data: &CStr) -> Result<OwnedFd, Failure> {
    mount(source, c"/", fs_type, MountFlags::empty(), data).at(Call::Mount)?;
    rustix::fs::openat(CWD, c"/..", OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty()).at(Call::OpenSource)
}

/// Changes a detached mount, and all of its tree.
fn change(tree: &OwnedFd, source: &Source, attr: AttrChange, tree_attr: AttrChange) -> Result<(), Failure> {
    let fresh = matches!(source, Source::Fs { .. });
    // A new filesystem got its attributes when it was mounted, and is no peer of anything.
    let mut attr = attr;
    let mut tree_attr = tree_attr;
    if fresh {
        attr = AttrChange {
            propagation: attr.propagation,
            ..AttrChange::default()
        };
        if tree_attr.propagation == Some(Propagation::Slave) {
            tree_attr.propagation = None;
        }
    }
    if !tree_attr.is_empty() {
        mount_setattr(tree, c"", Depth::Tree, tree_attr).at(Call::Attribute)?;
    }
    if !attr.is_empty() {
        mount_setattr(tree, c"", Depth::Mount, attr).at(Call::Attribute)?;
    }
    Ok(())
}

/// Puts a detached mount onto what a descriptor names.
pub(super) fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags).at(Call::Attach)
}

/// The root's own mount, over `/` of the child's namespace until it becomes the root.
pub(super) fn make_root(
    detached: Option<OwnedFd>,
    source: &Source,
    attr: AttrChange,
    tree_attr: AttrChange,
) -> Result<i32, Failure> {
    let tree = match detached {
        Some(tree) => tree,
        None => make(source, attr.set)?,
    };
    change(&tree, source, attr, tree_attr)?;
    // What mount(2) made lies over `/` already.
    if !matches!(source, Source::Legacy { .. }) {
        move_mount(&tree, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Call::Attach)?;
    }
    Ok(tree.into_raw_fd())
}

/// One mount into the root.
pub(super) fn mount_into(root: impl AsFd, op: &MountOp, detached: Option<OwnedFd>) -> Result<(), Failure> {
    let tree = match (&op.source, detached) {
        (_, Some(tree)) => tree,
        (Source::Fs { fs_type, params, .. }, None) if op.target == Target::Tmpfs => {
            let mut text = [0; MODE];
            let mode = mode_of(point(&root, &op.at, Last::Directory)?, &mut text)?;
            new_filesystem(fs_type, mode, params, op.attr.set)?
        }
        (Source::Inside { at, depth }, _) => {
            let source = open_in_root(&root, at.whole(), OFlags::PATH).at(Call::OpenSource)?;
            copy(source, *depth)?
        }
        (source, None) => make(source, op.attr.set)?,
    };
    change(&tree, &op.source, op.attr, op.tree_attr)?;
    let target = match op.target {
        Target::LikeSource if !is_directory(&tree).at(Call::OpenSource)? => file(&root, &op.at)?,
        // The kernel refuses a file over a directory and the other way round.
        Target::LikeSource => point(&root, &op.at, Last::Directory)?.fd,
        Target::Directory | Target::Tmpfs => directory(&root, &op.at)?,
        Target::DirectoryItself => directory_itself(&root, &op.at)?,
        Target::Proc if fstatfs(&tree).at(Call::OpenSource)?.f_type as u64 != PROC_SUPER_MAGIC => {
            return Err(Errno::PERM).at(Call::NotProc);
        }
        Target::Proc => directory_itself(&root, &op.at)?,
    };
    refuse_root(&root, &target)?;
    refuse_hidden_proc(&op.at, &target)?;
    attach(&tree, &target)
}

/// The mode of a directory that was there, in octal.
fn mode_of(point: Point, text: &mut [u8; MODE]) -> Result<Option<&CStr>, Failure> {
    if !point.found {
        return Ok(None);
    }
    let mut mode = fstat(&point.fd).at(Call::OpenTarget)?.st_mode & 0o7777;
    for digit in text.iter_mut().take(MODE - 1).rev() {
        *digit = b'0' + (mode & 7) as u8;
        mode >>= 3;
    }
    Ok(CStr::from_bytes_until_nul(text).ok())
}

/// A link of the image may lead to the root itself: what is mounted there would hide it from all that follows.
fn refuse_root(root: impl AsFd, target: &OwnedFd) -> Result<(), Failure> {
    let (root, target) = (fstat(root).at(Call::OpenTarget)?, fstat(target).at(Call::OpenTarget)?);
    if (root.st_dev, root.st_ino) == (target.st_dev, target.st_ino) {
        return Err(Errno::BUSY).at(Call::CoversRoot);
    }
    Ok(())
}

/// A mount point that does not say /proc and yet lies in a procfs got there by a symlink of the image: it would let
/// the image decide what the runtime reads and writes there.
fn refuse_hidden_proc(at: &InRoot, target: &OwnedFd) -> Result<(), Failure> {
    let named = at.names.first().is_some_and(|n| n.as_c_str() == c"proc");
    if !named && fstatfs(target).at(Call::OpenTarget)?.f_type as u64 == PROC_SUPER_MAGIC {
        return Err(Errno::LOOP).at(Call::CoversProc);
    }
    Ok(())
}

/// Binds a device node of the host, which must be one.
pub(super) fn bind_node(root: impl AsFd, host: &CStr, at: &InRoot) -> Result<(), Failure> {
    let tree = bind(host, Depth::Mount)?;
    let kind = FileType::from_raw_mode(fstat(&tree).at(Call::OpenSource)?.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) {
        return Err(Errno::NXIO).at(Call::NotADevice);
    }
    attach(&tree, file(&root, at)?)
}

/// Binds an open file over a place in the root.
pub(super) fn bind_fd(root: impl AsFd, fd: impl AsFd, at: &InRoot) -> Result<(), Failure> {
    let tree = copy(fd, Depth::Mount)?;
    attach(&tree, file(&root, at)?)
}

/// Hides a file behind the null device, a directory behind an empty one that is read-only. What is not there needs no hiding.
pub(super) fn mask(root: impl AsFd, at: &InRoot) -> Result<(), Failure> {
    let target = match open_in_root(&root, at.whole(), OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        answer => answer.at(Call::OpenTarget)?,
    };
    if is_directory(&target).at(Call::OpenTarget)? {
        let empty = new_filesystem(c"tmpfs", None, &[], MountAttr::RDONLY)?;
        return attach(&empty, &target);
    }
    let null = bind(c"/dev/null", Depth::Mount)?;
    let stat = fstat(&null).at(Call::OpenSource)?;
    let device = (
        FileType::from_raw_mode(stat.st_mode),
        major(stat.st_rdev),
        minor(stat.st_rdev),
    );
    if device != (FileType::CharacterDevice, 1, 3) {
        return Err(Errno::NXIO).at(Call::NotADevice);
    }
    attach(&null, &target)
}

/// Makes what is at a path read-only, with all that is mounted below. What is not there needs no protection.
pub(super) fn read_only_path(root: impl AsFd, at: &InRoot) -> Result<(), Failure> {
    let target = match open_in_root(&root, at.whole(), OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        answer => answer.at(Call::OpenTarget)?,
    };
    let tree = copy(&target, Depth::Tree)?;
    let change = AttrChange {
        set: MountAttr::RDONLY,
        ..AttrChange::default()
    };
    mount_setattr(&tree, c"", Depth::Tree, change).at(Call::Attribute)?;
    attach(&tree, &target)
}

/// Makes the mount at a place read-only.
pub(super) fn close(root: impl AsFd, at: &InRoot) -> Result<(), Failure> {
    let target = open_in_root(&root, at.whole(), OFlags::PATH).at(Call::OpenTarget)?;
    let change = AttrChange {
        set: MountAttr::RDONLY,
        ..AttrChange::default()
    };
    mount_setattr(&target, c"", Depth::Mount, change).at(Call::Attribute)
}

/// Changes how mounts travel between here and where they were copied from.
pub(super) fn propagate(propagation: Propagation) -> Result<(), Failure> {
    let flag = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    mount_change(c"/", flag | MountPropagationFlags::REC).at(Call::Attribute)
}

/// Makes the assembled root the root, and lets go of the old one.
pub(super) fn enter_root(root: impl AsFd) -> Result<(), Failure> {
    fchdir(&root).at(Call::PivotRoot)?;
    pivot_root(c".", c".").at(Call::PivotRoot)?;
    unmount(c".", UnmountFlags::DETACH).at(Call::Unmount)?;
    rustix::process::chdir(c"/").at(Call::Chdir)
}
