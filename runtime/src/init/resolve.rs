//! Paths inside the root being assembled, resolved by descriptor: whatever symlinks the image has, nothing outside is touched.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;

use super::report::{At, Call, Failure};
use crate::plan::op::InRoot;

/// A rename or mount anywhere on the machine may make the kernel unsure about a `..`; it says so and wants to be asked again.
const TRIES: u32 = 10_000;

/// Opens a path as if `root` were the root directory (openat2(2), `RESOLVE_IN_ROOT`).
pub(super) fn open_in_root(root: impl AsFd, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_resolving(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn open_resolving(root: impl AsFd, path: &CStr, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    for _ in 0..TRIES {
        match openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a directory, making what is missing on the way.
pub(super) fn directory(root: impl AsFd, path: &InRoot) -> Result<OwnedFd, Failure> {
    match open_in_root(&root, path.whole(), OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => make_along(root, path, path.names.len()),
        answer => answer.at(Call::OpenTarget),
    }
}

/// The same for what the runtime itself reads and writes by name afterwards: no symbolic link may lead there, or the image would
/// decide where it is (CVE-2019-19921, CVE-2023-27561).
pub(super) fn directory_itself(root: impl AsFd, path: &InRoot) -> Result<OwnedFd, Failure> {
    let open = || {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        open_resolving(&root, path.whole(), OFlags::PATH | OFlags::DIRECTORY, resolve)
    };
    match open() {
        Err(Errno::NOENT) => {
            directory(&root, path)?;
            open().at(Call::NotItself)
        }
        answer => answer.at(Call::NotItself),
    }
}

/// Opens a file of any kind, making an empty one when there is none.
pub(super) fn file(root: impl AsFd, path: &InRoot) -> Result<OwnedFd, Failure> {
    match open_in_root(&root, path.whole(), OFlags::PATH) {
        Err(Errno::NOENT) => {}
        answer => return answer.at(Call::OpenTarget),
    }
    let Some((name, above)) = path.names.split_last() else {
        return Err(Errno::ISDIR).at(Call::OpenTarget);
    };
    let parent = make_along(&root, path, above.len())?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(&parent, name.as_c_str(), create, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => open_in_root(&root, path.whole(), OFlags::PATH).at(Call::OpenTarget),
        Err(errno) => Err(errno).at(Call::MakeTarget),
    }
}

/// The directory that the first `count` names of `path` lead to; what is missing is made.
fn make_along(root: impl AsFd, path: &InRoot, count: usize) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut parent = open_in_root(&root, c".", flags).at(Call::OpenTarget)?;
    for (name, prefix) in path.names.iter().zip(&path.prefixes).take(count) {
        let found = match open_in_root(&root, prefix, flags) {
            Err(Errno::NOENT) => {
                match mkdirat(&parent, name.as_c_str(), Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno).at(Call::MakeTarget),
                }
                open_in_root(&root, prefix, flags)
            }
            answer => answer,
        };
        parent = found.at(Call::OpenTarget)?;
    }
    Ok(parent)
}

/// Whether the descriptor is of a directory.
pub(super) fn is_directory(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}
