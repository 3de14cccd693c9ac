//! Small operations on files named by a directory's descriptor and one name. Nothing here follows a symbolic link.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::Error;

/// How a directory is opened: for reading its list and as the base of other calls, never through a symbolic link.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The largest value that the kernel stores in an extended attribute (`XATTR_SIZE_MAX`).
pub(crate) const XATTR_MAX: usize = 65536;

/// An [`Error::Io`] made from the system's answer.
pub(crate) fn failed(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Io {
        action,
        path: path.as_ref().to_owned(),
        source: errno.into(),
    }
}

/// Opens directory `name` in `dir`.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    retry(|| rustix::fs::openat(dir.as_fd(), name, DIRECTORY, Mode::empty()))
}

/// Opens `path`, several components long, below `dir`; fails when any component is a symbolic link.
pub(crate) fn open_below(dir: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: the kernel saw a rename somewhere and could not be sure that nothing escaped; it asks to try again.
    loop {
        match rustix::fs::openat2(dir.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            answer => return answer,
        }
    }
}

/// Stats `name` in `dir`, not following a link.
pub(crate) fn stat(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The type of a file.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}

/// Whether it is what overlay takes for "not there": a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Calls again while a signal interrupts.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            answer => return answer,
        }
    }
}

/// The owner of `stat`, for chown.
pub(crate) fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

/// The names in a directory, without `.` and `..`, and the type that the directory has for each (may be unknown).
pub(crate) fn list(dir: impl AsFd) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Whether a directory has no entry.
pub(crate) fn is_empty(dir: impl AsFd) -> rustix::io::Result<bool> {
    for entry in Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A path for the calls that take no descriptor: extended attributes of what can't be opened, such as a symbolic link.
///
/// The last component is not followed by the `l...xattr` calls; what comes before it is the descriptor itself.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Whether an attribute belongs to overlay itself: copied or unpacked, it would change what the mount shows.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// All extended attributes of `name` in `dir` that may be copied to another file.
pub(crate) fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(dir, name);
    read_xattrs(
        |buf| rustix::fs::llistxattr(&path[..], buf),
        |key, buf| rustix::fs::lgetxattr(&path[..], key, buf),
    )
}

fn read_xattrs(
    list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match sized(list) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for key in names
        .split(|b| *b == 0)
        .filter(|key| !key.is_empty() && !is_overlay_xattr(key))
    {
        match sized(|buf| get(key, buf)) {
            Ok(value) => found.push((key.to_vec(), value)),
            // It went away, or it is one that we may not read.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// Whether an attribute belongs to this machine, or to overlay, rather than to a layer.
fn is_local_xattr(name: &[u8]) -> bool {
    is_overlay_xattr(name) || name == b"security.selinux" || name == b"system.nfs4_acl"
}

/// The extended attributes of `name` in `dir` that belong into a layer, sorted.
pub(crate) fn layer_xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    Ok(for_layer(xattrs(dir, name)?))
}

/// The same of an open file.
pub(crate) fn layer_xattrs_of(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let found = read_xattrs(
        |buf| rustix::fs::flistxattr(file, buf),
        |key, buf| rustix::fs::fgetxattr(file, key, buf),
    );
    Ok(for_layer(found?))
}

fn for_layer(mut xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    xattrs.retain(|(key, _)| !is_local_xattr(key));
    xattrs.sort();
    xattrs
}

/// Whether `name` in `dir` has that attribute.
pub(crate) fn has_xattr(dir: BorrowedFd<'_>, name: &[u8], key: &CStr) -> rustix::io::Result<bool> {
    match rustix::fs::lgetxattr(&proc_path(dir, name)[..], key, &mut [0; 0][..]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Sets the attributes by `set`; those that this filesystem or this user can't have are left out and counted.
pub(crate) fn set_xattrs(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> rustix::io::Result<u64> {
    let mut left_out = 0;
    for (key, value) in xattrs {
        match set(key, value) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::PERM) => left_out += 1,
            Err(errno) => return Err(errno),
        }
    }
    Ok(left_out)
}

/// Sets the attributes of `name` in `dir`, which may be of any type.
pub(crate) fn set_xattrs_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> rustix::io::Result<u64> {
    if xattrs.is_empty() {
        return Ok(0);
    }
    let path = proc_path(dir, name);
    set_xattrs(xattrs, |key, value| {
        rustix::fs::lsetxattr(&path[..], key, value, XattrFlags::empty())
    })
}

/// Sets the attributes of an open file or directory.
pub(crate) fn set_xattrs_of(file: impl AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> rustix::io::Result<u64> {
    set_xattrs(xattrs, |key, value| {
        rustix::fs::fsetxattr(file.as_fd(), key, value, XattrFlags::empty())
    })
}

/// Opens directory `name` in `dir` even when its mode does not allow its owner to, by changing the mode; gives the one that it had then.
pub(crate) fn open_locked_dir(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<(OwnedFd, Option<Mode>)> {
    match open_dir(dir.as_fd(), name) {
        Err(Errno::ACCESS) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(dir.as_fd(), name, flags, Mode::empty())?;
            let mode = Mode::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode);
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            rustix::fs::chmod(path, mode | Mode::RWXU)?;
            Ok((open_dir(dir, name)?, Some(mode)))
        }
        answer => answer.map(|fd| (fd, None)),
    }
}

/// Gives a directory the mode back that [`open_locked_dir`] took.
pub(crate) fn lock_again(dir: impl AsFd, mode: Option<Mode>) -> rustix::io::Result<()> {
    match mode {
        Some(mode) => rustix::fs::fchmod(dir, mode),
        None => Ok(()),
    }
}

/// The modification time of `stat`, the access time left as it is.
pub(crate) fn mtime(stat: &Stat) -> Timestamps {
    mtime_of(Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    })
}

/// A modification time to be set, the access time left as it is.
pub(crate) fn mtime_of(time: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: time,
    }
}

/// Calls with a buffer, with a larger one when it was too small.
fn sized(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buf = vec![0; 256];
    loop {
        match call(&mut buf) {
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
            Err(Errno::RANGE) if buf.len() < XATTR_MAX => buf.resize(XATTR_MAX, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// The value of an attribute of an open file, if it has one of at most 16 bytes.
pub(crate) fn small_xattr(fd: impl AsFd, name: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut buf = [0; 16];
    match rustix::fs::fgetxattr(fd, name, &mut buf[..]) {
        Ok(len) => Ok(Some(buf[..len].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}
