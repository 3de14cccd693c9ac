//! Content of files whose tree somebody else may be changing.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::at;

/// Holes that are smaller are written as zeros.
const HOLE: u64 = 64 * 1024;
/// A file is worth a map of its holes when it has this much of them.
const HOLES: u64 = 1024 * 1024;
/// Pieces of content in one file; apply's own limit is above that.
const PIECES: usize = 50_000;

/// Opens a regular file for reading; `None` when it is something else by now, or gone.
///
/// The file is pinned before it is opened: a name that becomes a device or a FIFO in between is never opened as one.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<(OwnedFd, Stat)>> {
    let pin = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = match rustix::fs::openat(dir, name, pin, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        answer => answer?,
    };
    let stat = rustix::fs::fstat(&pinned)?;
    if at::file_type(&stat) != FileType::RegularFile {
        return Ok(None);
    }
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = at::retry(|| rustix::fs::open(&path[..], read, Mode::empty()))?;
    Ok(Some((file, stat)))
}

/// Whether two files have the same content now.
pub(super) fn same_content(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut bufs = [vec![0; 128 * 1024], vec![0; 128 * 1024]];
    let mut offset = 0;
    loop {
        let [a, b] = &mut bufs;
        let (got_a, got_b) = (read_full(one, a, offset)?, read_full(other, b, offset)?);
        if a[..got_a] != b[..got_b] {
            return Ok(false);
        }
        if got_a < a.len() {
            return Ok(true);
        }
        offset += got_a as u64;
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(file: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match at::retry(|| rustix::io::pread(file, &mut buf[got..], offset + got as u64))? {
            0 => break,
            len => got += len,
        }
    }
    Ok(got)
}

/// Offset and length of each piece of content of a file that is worth a map; `None` for one that is not.
pub(super) fn pieces(file: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<Option<Vec<(u64, u64)>>> {
    let size = stat.st_size as u64;
    // Units of 512 bytes, whatever the block size.
    if size < HOLES || (stat.st_blocks as u64).saturating_mul(512) > size - HOLES {
        return Ok(None);
    }
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            // The filesystem does not know holes.
            Err(Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        found.push((start, end - start));
        at = end.max(start + 1);
    }
    let mut hole = HOLE;
    found = without_holes_below(found, hole);
    while found.len() > PIECES {
        hole *= 2;
        found = without_holes_below(found, hole);
    }
    Ok(Some(found))
}

/// Joins pieces with small holes between them.
fn without_holes_below(pieces: Vec<(u64, u64)>, hole: u64) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (offset, len) in pieces {
        match joined.last_mut() {
            Some(last) if offset - (last.0 + last.1) < hole => last.1 = offset + len - last.0,
            _ => joined.push((offset, len)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_holes_are_filled() {
        let pieces = vec![(0, 4096), (8192, 4096), (1 << 20, 4096)];
        assert_eq!(without_holes_below(pieces, HOLE), [(0, 12288), (1 << 20, 4096)]);
    }
}
