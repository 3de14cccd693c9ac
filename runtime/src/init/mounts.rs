//! Mounts: made detached, changed, and attached by descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

use longshore_linux::{AttrChange, Depth, MountAttr, Propagation, mount_setattr};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, XattrFlags, fsetxattr, fstat, fstatfs,
    mkdirat, openat, openat2, statx,
};
use rustix::io::Errno;
use rustix::mount::{
    FsPickFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_reconfigure, fspick, mount_change,
    move_mount, unmount,
};
use rustix::process::{fchdir, pivot_root};

use super::attributes::{set_attributes, set_propagation};
use super::copy_up::copy_contents;
use super::devices::is_null;
use super::report::{At, Call, Failure};
use super::resolve::{Last, Point, directory, directory_itself, file, is_directory, open_in_root, point};
use super::sources::{bind, copy, make, new_filesystem, set_params};
use crate::plan::op::{Assembly, FsParam, InRoot, MountOp, Old, Source, Target};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// Four octal digits and the end.
const MODE: usize = 5;

/// Puts a detached mount onto what a descriptor names.
pub(super) fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags).at(Call::Attach)
}

/// The root's own mount, over `/` of the child's namespace until it becomes the root, or nowhere.
pub(super) fn make_root(
    assembly: Assembly,
    detached: Option<OwnedFd>,
    source: &Source,
    attr: AttrChange,
    propagation: &[(Propagation, Depth)],
) -> Result<i32, Failure> {
    let tree = match detached {
        Some(tree) => tree,
        None => make(source, attr.set)?,
    };
    // A new filesystem got its attributes when it was mounted.
    if !attr.is_empty() && !matches!(source, Source::Fs { .. }) {
        mount_setattr(&tree, c"", Depth::Mount, attr).at(Call::Attribute)?;
    }
    set_propagation(&tree, propagation)?;
    // What mount(2) made lies over `/` already.
    if !matches!(source, Source::Legacy { .. }) && assembly == Assembly::OverOld {
        move_mount(&tree, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Call::Attach)?;
    }
    Ok(tree.into_raw_fd())
}

/// What a mount is made from, attached to nothing yet.
pub(super) fn tree_of(root: impl AsFd, op: &MountOp) -> Result<OwnedFd, Failure> {
    match &op.source {
        Source::Inside { at, depth } => {
            let source = open_in_root(&root, at.whole(), OFlags::PATH).at(Call::OpenSource)?;
            copy(source, *depth)
        }
        Source::Fs { fs_type, params, .. } if op.target == Target::Tmpfs => {
            let mut text = [0; MODE];
            let mode = mode_of(point(&root, &op.at, Last::Directory)?, &mut text)?.map(|mode| (c"mode", mode));
            new_filesystem(fs_type, mode.as_slice(), params, op.attr.change.set)
        }
        source => make(source, op.attr.change.set),
    }
}

/// One mount into the root.
pub(super) fn mount_into(
    root: impl AsFd,
    op: &MountOp,
    tree: &OwnedFd,
    within: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    change(tree, op)?;
    if let Some(label) = &op.label {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(tree, c".", flags, Mode::empty()).at(Call::Label)?;
        fsetxattr(top, c"security.selinux", label.to_bytes(), XattrFlags::empty()).at(Call::Label)?;
    }
    let target = match op.target {
        Target::LikeSource if !is_directory(tree).at(Call::OpenSource)? => file(&root, &op.at)?,
        // The kernel refuses a file over a directory and the other way round.
        Target::LikeSource => point(&root, &op.at, Last::Directory)?.fd,
        Target::Directory | Target::Tmpfs => directory(&root, &op.at)?,
        Target::DirectoryItself => directory_itself(&root, &op.at)?,
        Target::Proc if fstatfs(tree).at(Call::OpenSource)?.f_type as u64 != PROC_SUPER_MAGIC => {
            return Err(Errno::PERM).at(Call::NotProc);
        }
        Target::Proc => directory_itself(&root, &op.at)?,
        Target::Within(_) => {
            let (_, name) = op.at.split().ok_or(Errno::ISDIR).at(Call::OpenTarget)?;
            return attach_within(tree, within.ok_or(Errno::BADF).at(Call::Protocol)?, name);
        }
    };
    refuse_root(&root, &target)?;
    refuse_hidden_proc(&op.at, &target)?;
    if op.copy_up {
        copy_contents(&target, tree)?;
    }
    attach(tree, &target)
}

/// Puts a detached mount onto a directory that it makes in a filesystem of our own.
fn attach_within(tree: &OwnedFd, within: BorrowedFd<'_>, name: &CStr) -> Result<(), Failure> {
    match mkdirat(within, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).at(Call::MakeTarget),
    }
    // A symbolic link would not be followed.
    move_mount(tree, c"", within, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Call::Attach)
}

/// Changes a detached mount, and all of its tree.
fn change(tree: &OwnedFd, op: &MountOp) -> Result<(), Failure> {
    set_propagation(tree, &op.propagation)?;
    // A new filesystem got its attributes when it was mounted.
    if !matches!(op.source, Source::Fs { .. }) {
        set_attributes(tree, &op.attr)?;
    }
    if !op.tree_attr.is_empty() {
        mount_setattr(tree, c"", Depth::Tree, op.tree_attr).at(Call::Attribute)?;
    }
    Ok(())
}

/// Changes what is mounted at a place: the filesystem's own parameters if there are any, and the mount.
pub(super) fn again(
    root: impl AsFd,
    op: &MountOp,
    params: Option<&[FsParam]>,
    assembly: Assembly,
) -> Result<(), Failure> {
    let there = open_in_root(&root, op.at.whole(), OFlags::PATH).at(Call::OpenTarget)?;
    refuse_root(&root, &there)?;
    refuse_hidden_proc(&op.at, &there)?;
    if let Some(params) = params {
        let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
        let fs = fspick(&there, c"", flags).at(Call::FsOpen)?;
        set_params(&fs, params)?;
        fsconfig_reconfigure(&fs).at(Call::FsChange)?;
    }
    change_attached(&there, assembly, |mount| change(mount, op))
}

/// Changes a mount that is attached. In a tree that is attached to nothing itself, only its root can be changed (mount_setattr(2)): there a changed
/// copy covers what was to be changed.
fn change_attached(
    mount: &OwnedFd,
    assembly: Assembly,
    change: impl Fn(&OwnedFd) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if assembly == Assembly::OverOld {
        return change(mount);
    }
    let seen = statx(mount, c"", AtFlags::EMPTY_PATH, StatxFlags::empty()).at(Call::Attribute)?;
    if !seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::INVAL).at(Call::Attribute);
    }
    let copy = copy(mount, Depth::Tree)?;
    change(&copy)?;
    attach(&copy, mount)
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
pub(super) fn refuse_hidden_proc(at: &InRoot, target: &OwnedFd) -> Result<(), Failure> {
    let named = at.names.first().is_some_and(|n| n.as_c_str() == c"proc");
    if !named && fstatfs(target).at(Call::OpenTarget)?.f_type as u64 == PROC_SUPER_MAGIC {
        return Err(Errno::LOOP).at(Call::CoversProc);
    }
    Ok(())
}

/// Hides a file behind the null device, a directory behind an empty one that is read-only. What is not there needs no hiding.
/// All directories are hidden behind the same, which is kept at hand.
pub(super) fn mask(
    root: impl AsFd,
    at: &InRoot,
    label: Option<&CStr>,
    empty: &mut Option<OwnedFd>,
) -> Result<(), Failure> {
    let target = match open_in_root(&root, at.whole(), OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        answer => answer.at(Call::OpenTarget)?,
    };
    if is_directory(&target).at(Call::OpenTarget)? {
        return match empty {
            Some(empty) => attach(copy(empty, Depth::Mount)?, &target),
            none => attach(none.insert(new_empty(label)?), &target),
        };
    }
    let null = bind(c"/dev/null", Depth::Mount)?;
    if !is_null(&fstat(&null).at(Call::OpenSource)?) {
        return Err(Errno::NXIO).at(Call::NotADevice);
    }
    attach(&null, &target)
}

/// An empty directory in which there is no place for anything.
fn new_empty(label: Option<&CStr>) -> Result<OwnedFd, Failure> {
    let labelled = label.map(|label| (c"context", label));
    let smallest = [(c"nr_blocks", c"1"), (c"nr_inodes", c"1"), labelled.unwrap_or_default()];
    let smallest = &smallest[..2 + usize::from(labelled.is_some())];
    match new_filesystem(c"tmpfs", smallest, &[], MountAttr::RDONLY) {
        // Some kernels want more than one inode.
        Err(_) => new_filesystem(c"tmpfs", labelled.as_slice(), &[], MountAttr::RDONLY),
        empty => empty,
    }
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

/// Makes a mount read-only.
pub(super) fn close(mount: OwnedFd, assembly: Assembly) -> Result<(), Failure> {
    let change = AttrChange {
        set: MountAttr::RDONLY,
        ..AttrChange::default()
    };
    change_attached(&mount, assembly, |mount| {
        mount_setattr(mount, c"", Depth::Mount, change).at(Call::Attribute)
    })
}

/// Changes how mounts travel between here and where they were copied from.
pub(super) fn propagate(path: &CStr, propagation: Propagation, depth: Depth) -> Result<(), Failure> {
    let mut flags = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    if depth == Depth::Tree {
        flags |= MountPropagationFlags::REC;
    }
    mount_change(path, flags).at(Call::Attribute)
}

/// Cuts the mount that a directory is on off from the host's, so that what is mounted on it stays here.
pub(super) fn cut_off(directory: impl AsFd) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |from: BorrowedFd<'_>, name| openat2(from, name, flags, Mode::empty(), ResolveFlags::NO_XDEV);
    let mut top = open(directory.as_fd(), c".").at(Call::Open)?;
    // Upwards to the directory that is the mount's root: only that stands for the mount.
    loop {
        let change = AttrChange {
            propagation: Some(Propagation::Slave),
            ..AttrChange::default()
        };
        match mount_setattr(&top, c"", Depth::Mount, change) {
            Err(Errno::INVAL) => top = open(top.as_fd(), c"..").at(Call::Attribute)?,
            answer => return answer.at(Call::Attribute),
        }
    }
}

/// Makes the assembled root the root of this process, and of nobody else who is in its mount namespace.
pub(super) fn change_root(root: impl AsFd) -> Result<(), Failure> {
    fchdir(root).at(Call::Chdir)?;
    rustix::process::chroot(c".").at(Call::PivotRoot)?;
    rustix::process::chdir(c"/").at(Call::Chdir)
}

/// Makes the assembled root the root, and lets go of the old one.
pub(super) fn enter_root(root: impl AsFd, old: Old) -> Result<(), Failure> {
    let before = match old {
        Old::Apart => None,
        Old::CutOff => Some(openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Call::Open)?),
    };
    fchdir(&root).at(Call::PivotRoot)?;
    pivot_root(c".", c".").at(Call::PivotRoot)?;
    if let Some(before) = before {
        // The old root lies on the new one, where `.` finds it to be unmounted, but not to be changed.
        fchdir(before).at(Call::PivotRoot)?;
        propagate(c".", Propagation::Slave, Depth::Tree)?;
    }
    unmount(c".", UnmountFlags::DETACH).at(Call::Unmount)?;
    rustix::process::chdir(c"/").at(Call::Chdir)
}
