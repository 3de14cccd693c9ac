use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, Stat, Timespec};
use rustix::io::Errno;

use crate::apply::path::{OPAQUE, WHITEOUT, join, split};
use crate::apply::{Hash, Ownership};
use crate::diff::content::{open_file, pieces, read_full};
use crate::diff::found::{Found, What};
use crate::diff::header::Header;
use crate::diff::{DiffOptions, Diffed};
use crate::{Error, Result, at};

/// Longer paths are refused by unpackers, and by the kernel.
const PATH_MAX: usize = 4095;
const BUFFER: usize = 256 * 1024;

/// Writes what was found as a tar archive.
pub(super) struct Writer<'a, W> {
    out: Hashing<W>,
    root: OwnedFd,
    path: PathBuf,
    options: &'a DiffOptions,
    /// The directory that the last entry was in.
    dir: Option<(Vec<u8>, OwnedFd)>,
    /// The first name of each file that has several.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
    buf: Vec<u8>,
}

/// Counts and hashes what goes through.
struct Hashing<W> {
    out: W,
    hash: Hash,
    size: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    pub(super) fn open(path: &Path, out: W, options: &'a DiffOptions) -> Result<Self> {
        Ok(Self {
            out: Hashing {
                out,
                hash: Hash::new(None),
                size: 0,
            },
            root: rustix::fs::open(path, at::DIRECTORY, Mode::empty()).map_err(at::failed("opening", path))?,
            path: path.to_owned(),
            options,
            dir: None,
            first_names: HashMap::new(),
            entries: 0,
            buf: vec![0; BUFFER],
        })
    }

    pub(super) fn write(mut self, found: Found) -> Result<Diffed> {
        for (key, what) in found.paths {
            let path = key.0;
            match what {
                What::Put(_) => drop(self.put(&path)?),
                What::PutOpaque(_) => {
                    if self.put(&path)? {
                        self.marker(&join(&path, OPAQUE))?;
                    }
                }
                What::Gone => {
                    let (dir, name) = split(&path);
                    self.marker(&join(dir, &[WHITEOUT, name].concat()))?;
                }
                What::GoneWithParent => {}
            }
        }
        self.out.write(&[0; 1024])?;
        self.out.out.flush().map_err(Error::Sink)?;
        Ok(Diffed {
            diff_id: self.out.hash.finish(),
            size: self.out.size,
            entries: self.entries,
            left_out: found.left_out,
        })
    }

    /// A whiteout: an empty file whose name says all.
    fn marker(&mut self, path: &[u8]) -> Result<()> {
        self.header(&Header {
            path,
            kind: b'0',
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timespec { tv_sec: 0, tv_nsec: 0 },
            size: 0,
            link: b"",
            device: (0, 0),
            xattrs: &[],
            real_size: None,
        })
    }

    /// Writes a file or a directory; false if it is gone by now.
    fn put(&mut self, path: &[u8]) -> Result<bool> {
        let (parent, name) = split(path);
        let name = if name.is_empty() { b"." } else { name };
        if !self.enter(parent)? {
            return Ok(false);
        }
        let Some((_, dir)) = self.dir.take() else {
            return Ok(false);
        };
        let written = self.put_in(dir.as_fd(), name, path);
        self.dir = Some((parent.to_vec(), dir));
        written
    }

    fn put_in(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<bool> {
        let failed = || super::failed("reading", &self.path, path);
        let stat = match at::stat(dir, name) {
            Err(Errno::NOENT) => return Ok(false),
            answer => answer.map_err(failed())?,
        };
        let kind = at::file_type(&stat);
        if kind == FileType::RegularFile {
            return match open_file(dir, name).map_err(failed())? {
                Some((file, stat)) => self.put_file(&file, &stat, path).map(|()| true),
                None => Ok(false),
            };
        }
        let xattrs = match at::layer_xattrs(dir, name) {
            Err(Errno::NOENT) => return Ok(false),
            answer => answer.map_err(failed())?,
        };
        let target = match kind {
            FileType::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => return Ok(false),
                answer => answer.map_err(failed())?.into_bytes(),
            },
            _ => Vec::new(),
        };
        if kind != FileType::Directory && self.put_link(path, &stat)? {
            return Ok(true);
        }
        let (letter, device) = match kind {
            FileType::Directory => (b'5', (0, 0)),
            FileType::Symlink => (b'2', (0, 0)),
            FileType::Fifo => (b'6', (0, 0)),
            FileType::CharacterDevice => (b'3', numbers(&stat)),
            FileType::BlockDevice => (b'4', numbers(&stat)),
            // A name that became a socket while we looked.
            _ => return Ok(false),
        };
        let path = match (kind, path) {
            (FileType::Directory, b"") => b"./".to_vec(),
            (FileType::Directory, path) => [path, b"/"].concat(),
            (_, path) => path.to_vec(),
        };
        self.header(&Header {
            kind: letter,
            link: &target,
            device,
            xattrs: &xattrs,
            ..self.describe(&path, &stat)
        })?;
        Ok(true)
    }

    fn put_file(&mut self, file: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<()> {
        if self.put_link(path, stat)? {
            return Ok(());
        }
        let failed = || super::failed("reading", &self.path, path);
        let xattrs = at::layer_xattrs_of(file.as_fd()).map_err(failed())?;
        let pieces = pieces(file.as_fd(), stat).map_err(failed())?;
        let size = stat.st_size as u64;
        let header = Header {
            xattrs: &xattrs,
            ..self.describe(path, stat)
        };
        let Some(mut pieces) = pieces else {
            self.header(&Header { size, ..header })?;
            self.content(file, 0, size, path)?;
            return self.pad(size);
        };
        // A map that does not reach the end has an empty piece there, as GNU tar writes it.
        if pieces.last().is_none_or(|(offset, len)| offset + len < size) {
            pieces.push((size, 0));
        }
        let map = sparse_map(&pieces);
        let content = map.len() as u64 + pieces.iter().map(|(_, len)| len).sum::<u64>();
        self.header(&Header {
            size: content,
            real_size: Some(size),
            ..header
        })?;
        self.out.write(&map)?;
        for (offset, len) in pieces {
            self.content(file, offset, len, path)?;
        }
        self.pad(content)
    }

    /// Writes another name of a file that is in the archive; false if it is not.
    fn put_link(&mut self, path: &[u8], stat: &Stat) -> Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let inode = (stat.st_dev, stat.st_ino);
        let Some(first) = self.first_names.get(&inode).cloned() else {
            self.first_names.insert(inode, path.to_vec());
            return Ok(false);
        };
        self.header(&Header {
            kind: b'1',
            link: &first,
            ..self.describe(path, stat)
        })?;
        Ok(true)
    }

    fn describe<'h>(&self, path: &'h [u8], stat: &Stat) -> Header<'h> {
        let (uid, gid) = match self.options.ownership {
            Ownership::Keep => (stat.st_uid, stat.st_gid),
            Ownership::Caller => (0, 0),
        };
        let mtime = Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        };
        Header {
            path,
            kind: b'0',
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: self.options.clamped(mtime),
            size: 0,
            link: b"",
            device: (0, 0),
            xattrs: &[],
            real_size: None,
        }
    }

    fn header(&mut self, header: &Header<'_>) -> Result<()> {
        if header.path.len() > PATH_MAX {
            return Err(Error::Unrepresentable {
                path: super::shown(header.path),
                reason: format!("its path is longer than {PATH_MAX} bytes"),
            });
        }
        self.entries += 1;
        self.out.write(&header.bytes())
    }

    /// Exactly `len` bytes, as the header promised: zeros for what is not there any more.
    fn content(&mut self, file: &OwnedFd, mut offset: u64, mut len: u64, path: &[u8]) -> Result<()> {
        while len > 0 {
            let want = usize::try_from(len).unwrap_or(usize::MAX).min(self.buf.len());
            let got = read_full(file.as_fd(), &mut self.buf[..want], offset)
                .map_err(super::failed("reading", &self.path, path))?;
            self.buf[got..want].fill(0);
            self.out.write(&self.buf[..want])?;
            offset += want as u64;
            len -= want as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = size.next_multiple_of(512) - size;
        self.out.write(&[0; 512][..padding as usize])
    }

    /// Goes to a directory; false if it is gone.
    fn enter(&mut self, path: &[u8]) -> Result<bool> {
        if self.dir.as_ref().is_some_and(|(here, _)| here == path) {
            return Ok(true);
        }
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        match at::open_below(&self.root, name, at::DIRECTORY) {
            Ok(dir) => {
                self.dir = Some((path.to_vec(), dir));
                Ok(true)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(errno) => Err(super::failed("opening", &self.path, path)(errno)),
        }
    }
}

impl<W: Write> Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes).map_err(Error::Sink)
    }
}

/// How many pieces, then offset and length of each, one number a line, filled up to a block.
fn sparse_map(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len()).into_bytes();
    for (offset, len) in pieces {
        map.extend(format!("{offset}\n{len}\n").into_bytes());
    }
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

fn numbers(stat: &Stat) -> (u32, u32) {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
}
