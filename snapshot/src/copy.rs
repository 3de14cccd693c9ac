//! Copying one file of any type, for copying up and for native snapshots.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::apply::Ownership;
use crate::at;

/// Copies `name` in `from`, which is no directory, with all its metadata, to `new_name` in `to`, where nothing is yet.
pub(crate) fn copy_node(
    from: BorrowedFd<'_>,
    name: &[u8],
    stat: &Stat,
    to: BorrowedFd<'_>,
    new_name: &[u8],
    ownership: Ownership,
) -> rustix::io::Result<()> {
    let kind = at::file_type(stat);
    let mode = Mode::from_raw_mode(stat.st_mode);
    let xattrs = at::xattrs(from, name)?;
    match kind {
        FileType::RegularFile => return copy_file(from, name, stat, to, new_name, ownership, &xattrs),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, new_name)?;
        }
        kind => rustix::fs::mknodat(to, new_name, kind, mode, stat.st_rdev)?,
    }
    if ownership == Ownership::Keep {
        let (uid, gid) = at::owner(stat);
        rustix::fs::chownat(to, new_name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    at::set_xattrs_at(to, new_name, &xattrs)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, new_name, mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(to, new_name, &at::mtime(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_file(
    from: BorrowedFd<'_>,
    name: &[u8],
    stat: &Stat,
    to: BorrowedFd<'_>,
    new_name: &[u8],
    ownership: Ownership,
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> rustix::io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, read, Mode::empty())?;
    let make = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(to, new_name, make, Mode::RUSR | Mode::WUSR)?;
    copy_content(source.as_fd(), target.as_fd(), stat.st_size as u64)?;
    if ownership == Ownership::Keep {
        let (uid, gid) = at::owner(stat);
        rustix::fs::fchown(&target, uid, gid)?;
    }
    at::set_xattrs_of(&target, xattrs)?;
    rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(&target, &at::mtime(stat))
}

/// Copies content: by sharing blocks where the filesystem can, else in the kernel, holes kept.
fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> rustix::io::Result<()> {
    if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
        copy_range(from, to, start, end)?;
        at = end;
    }
    rustix::fs::ftruncate(to, size)
}

fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> rustix::io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let want = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want) {
            // It became shorter while we copied.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, read_at, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut at: u64, end: u64) -> rustix::io::Result<()> {
    let mut buf = vec![0; 128 * 1024];
    while at < end {
        let want = buf.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let got = at::retry(|| rustix::io::pread(from, &mut buf[..want], at))?;
        if got == 0 {
            return Ok(());
        }
        let mut piece = &buf[..got];
        while !piece.is_empty() {
            let written = at::retry(|| rustix::io::pwrite(to, piece, at))?;
            piece = &piece[written..];
            at += written as u64;
        }
    }
    Ok(())
}
