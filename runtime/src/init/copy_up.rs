//! Copies what a tmpfs is about to cover into it (`tmpcopyup`).

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown, fstat,
    futimens, mkdirat, mknodat, openat, readlinkat_raw, sendfile, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::report::{At, Call, Failure};

/// How deep directories may lie; each takes some of the stack.
const DEEPEST: u32 = 100;
/// As much as one sendfile(2) moves.
const CHUNK: usize = 1 << 20;

/// Copies all that is in a directory, with owners, modes and times, but neither extended attributes nor hard links.
pub(super) fn copy_contents(from: impl AsFd, to: impl AsFd) -> Result<(), Failure> {
    let open = |dir| openat(dir, c".", READ | OFlags::DIRECTORY, Mode::empty()).at(Call::CopyUp);
    let (from, to) = (open(from.as_fd())?, open(to.as_fd())?);
    copy_directory(&from, &to, 0)?;
    let stat = fstat(&from).at(Call::CopyUp)?;
    fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).at(Call::CopyUp)
}

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<(), Failure> {
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG).at(Call::CopyUp);
    }
    let mut space = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(from, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.at(Call::CopyUp)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).at(Call::CopyUp)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU).at(Call::CopyUp)?;
                let flags = READ | OFlags::DIRECTORY;
                let inner_from = openat(from, name, flags, Mode::empty()).at(Call::CopyUp)?;
                let inner_to = openat(to, name, flags, Mode::empty()).at(Call::CopyUp)?;
                copy_directory(&inner_from, &inner_to, depth + 1)?;
                describe(&inner_to, &stat)
            }
            FileType::RegularFile => copy_file(from, to, name),
            FileType::Symlink => copy_link(from, to, name, &stat),
            kind => mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)
                .at(Call::CopyUp)
                .and_then(|()| describe_at(to, name, &stat)),
        }?;
    }
    Ok(())
}

/// What was opened may not be what was looked at before: only a file is read.
fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<(), Failure> {
    let from = openat(from, name, READ, Mode::empty()).at(Call::CopyUp)?;
    let stat = fstat(&from).at(Call::CopyUp)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN).at(Call::CopyUp);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = openat(to, name, flags, Mode::RUSR | Mode::WUSR).at(Call::CopyUp)?;
    while sendfile(&to, &from, None, CHUNK).at(Call::CopyUp)? > 0 {}
    describe(&to, &stat)
}

fn copy_link(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Failure> {
    let mut target = [0u8; 4096];
    let length = readlinkat_raw(from, name, &mut target[..]).at(Call::CopyUp)?;
    // A link that fills all of the space has no end, and was cut off.
    if length >= target.len() {
        return Err(Errno::NAMETOOLONG).at(Call::CopyUp);
    }
    let target = CStr::from_bytes_until_nul(&target).unwrap_or_default();
    symlinkat(target, to, name).at(Call::CopyUp)?;
    describe_at(to, name, stat)
}

/// Owner first: changing it takes set-user-id bits away.
fn describe(file: &OwnedFd, stat: &Stat) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(file, Some(uid), Some(gid)).at(Call::CopyUp)?;
    fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777)).at(Call::CopyUp)?;
    futimens(file, &times(stat)).at(Call::CopyUp)
}

fn describe_at(dir: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).at(Call::CopyUp)?;
    utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).at(Call::CopyUp)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    }
}
