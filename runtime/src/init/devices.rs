//! Device nodes, links and the console in the container's `/dev`.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use longshore_linux::{Depth, duplicate_onto};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, makedev, mknodat, openat, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use super::mounts::{attach, refuse_hidden_proc};
use super::report::{At, Call, Failure};
use super::resolve::file_itself;
use super::sources::{bind, copy};
use crate::plan::op::{InRoot, NodeOp, Over};

/// Makes a node. Where the kernel does not let us, the host's node of the same path is bound.
pub(super) fn make_node(root: impl AsFd, directory: BorrowedFd<'_>, name: &CStr, node: &NodeOp) -> Result<(), Failure> {
    let kind = FileType::from_raw_mode(node.mode);
    let device = makedev(node.major, node.minor);
    match mknodat(directory, name, kind, Mode::from_raw_mode(node.mode & 0o7777), device) {
        // One that is there is as good, if it is the same.
        Err(Errno::EXIST) => {
            let there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).at(Call::MakeNode)?;
            return if is_same(&there, node) {
                Ok(())
            } else {
                Err(Errno::EXIST).at(Call::MakeNode)
            };
        }
        Err(Errno::PERM) => return bind_node(root, node),
        answer => answer.at(Call::MakeNode)?,
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).at(Call::Owner)?;
    }
    Ok(())
}

/// Whether a file is the device that is asked for.
fn is_same(stat: &Stat, node: &NodeOp) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let same = kind == FileType::Fifo || stat.st_rdev == makedev(node.major, node.minor);
    kind == FileType::from_raw_mode(node.mode) && same
}

/// Binds the host's node of the same path, which must be the device that is asked for.
pub(super) fn bind_node(root: impl AsFd, node: &NodeOp) -> Result<(), Failure> {
    let tree = bind(&node.host, Depth::Mount)?;
    if !is_same(&fstat(&tree).at(Call::OpenSource)?, node) {
        return Err(Errno::NXIO).at(Call::OtherDevice);
    }
    cover(root, &tree, &node.at)
}

/// Binds the terminal over its place, by the descriptor that it was opened with (CVE-2025-52565).
pub(super) fn bind_console(root: impl AsFd, terminal: impl AsFd, at: &InRoot) -> Result<(), Failure> {
    cover(root, &copy(terminal, Depth::Mount)?, at)
}

fn cover(root: impl AsFd, tree: &OwnedFd, at: &InRoot) -> Result<(), Failure> {
    let target = file_itself(root, at)?;
    refuse_hidden_proc(at, &target)?;
    attach(tree, &target)
}

/// Makes a symbolic link.
pub(super) fn link(directory: BorrowedFd<'_>, name: &CStr, target: &CStr, over: Over) -> Result<(), Failure> {
    if over == Over::Replace {
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).at(Call::MakeLink),
        }
    }
    match symlinkat(target, directory, name) {
        Err(Errno::EXIST) => Ok(()),
        answer => answer.at(Call::MakeLink),
    }
}

/// Streams of the host's null device would be files of the host, whose owner and mode the container could change.
pub(super) fn own_null() -> Result<(), Failure> {
    let mut null = None;
    for number in 0..=2 {
        // SAFETY: the streams were put there, and nobody closes them meanwhile.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if !fstat(stream).is_ok_and(|stat| is_null(&stat)) {
            continue;
        }
        let null = match &mut null {
            Some(null) => null,
            none => none.insert(open_null()?),
        };
        // SAFETY: a stream is replaced by one of the same kind; the source is above the streams.
        unsafe { duplicate_onto(null.as_raw_fd(), number) }.at(Call::Duplicate)?;
    }
    Ok(())
}

fn open_null() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = openat(CWD, c"/dev/null", flags, Mode::empty()).at(Call::Null)?;
    if is_null(&fstat(&null).at(Call::Null)?) {
        Ok(null)
    } else {
        Err(Errno::NXIO).at(Call::Null)
    }
}

/// Whether it is the null device.
pub(super) fn is_null(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
}
