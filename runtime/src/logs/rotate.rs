use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, SeekFrom, flock, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::LogFile;
use crate::Result;
use crate::host::io_error;

/// A log that is written, and makes room when it is full. Once it is open, nothing of it allocates: a container's monitor writes one.
#[derive(Debug)]
pub(crate) struct Rotating {
    directory: OwnedFd,
    name: Name,
    limit: Option<u64>,
    files: u32,
    file: OwnedFd,
    size: u64,
    /// Whether the last record in the file is not whole: the disk was full, or its writer was killed.
    torn: bool,
}

impl Rotating {
    /// Opens a log to go on with it; it is made, with mode 0640, if it is not there. Its descriptors are 3 or higher.
    pub(crate) fn open(log: &LogFile) -> Result<Self> {
        let opened = (|| {
            let name = log.path.file_name().ok_or(Errno::ISDIR)?;
            let name = Name::new(name.as_bytes())?;
            let folder = log.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = above_streams(openat(CWD, folder.unwrap_or(Path::new(".")), flags, Mode::empty())?)?;
            let file = above_streams(open(&directory, name.numbered(0).as_c_str())?)?;
            let size = rustix::fs::seek(&file, SeekFrom::End(0))?;
            let mut last = [b'\n'];
            if let Some(at) = size.checked_sub(1) {
                rustix::io::pread(&file, &mut last, at)?;
            }
            Ok::<_, Errno>(Self {
                directory,
                name,
                limit: log.limit,
                files: log.files,
                file,
                size,
                torn: last != [b'\n'],
            })
        })();
        opened.map_err(io_error(format!("open the log {}", log.path.display())))
    }

    /// The descriptors, for a process that keeps no others.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.directory.as_raw_fd(), self.file.as_raw_fd()]
    }

    /// Whether a record of so many bytes, after others of so many that are still to be written, belongs into the next file.
    pub(super) fn is_full(&self, before: usize, record: usize) -> bool {
        let before = self.size + before as u64;
        self.limit
            .is_some_and(|limit| before > 0 && before + record as u64 > limit)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        if std::mem::replace(&mut self.torn, true) {
            self.write_all(b"\n")?;
        }
        self.write_all(bytes)?;
        self.torn = false;
        Ok(())
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.file, bytes) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(Errno::IO),
                written => {
                    let written = written?;
                    self.size += written as u64;
                    bytes = bytes.get(written..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Killed at any point, nothing but the oldest file is lost, and the order of the others is theirs by number.
    pub(super) fn rotate(&mut self) -> Result<(), Errno> {
        let file = |number| self.name.numbered(number);
        let rename = |from: u32, to: u32| {
            let (from, to) = (file(from), file(to));
            renameat(&self.directory, from.as_c_str(), &self.directory, to.as_c_str())
        };
        if self.files == 1 {
            // A reader sees another file, not one that has become shorter.
            unlinkat(&self.directory, file(0).as_c_str(), AtFlags::empty())?;
        } else {
            // Up to the first number that is free, as one may be after a rotation that was not finished.
            let is_there = |number: &u32| {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                statat(&self.directory, file(*number).as_c_str(), flags).is_ok()
            };
            let last = (1..self.files - 1)
                .find(|number| !is_there(number))
                .unwrap_or(self.files - 1);
            for number in (0..last).rev() {
                rename(number, number + 1)?;
            }
        }
        self.file = open(&self.directory, file(0).as_c_str())?;
        self.size = 0;
        self.torn = false;
        Ok(())
    }
}

/// A file's name of at most so many bytes as filesystems allow.
#[derive(Debug)]
struct Name {
    bytes: [u8; Name::LONGEST],
    length: usize,
}

impl Name {
    const LONGEST: usize = 255;

    fn new(name: &[u8]) -> Result<Self, Errno> {
        let mut bytes = [0; Self::LONGEST];
        let length = name.len();
        bytes.get_mut(..length).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name);
        Ok(Self { bytes, length })
    }

    /// The name of the file that has this number; the one that is written now, which has none, goes by 0.
    fn numbered(&self, number: u32) -> Numbered {
        let mut text = Cursor::new([0; Self::LONGEST + 13]);
        let _ = text.write_all(self.bytes.get(..self.length).unwrap_or_default());
        if number > 0 {
            let _ = write!(text, ".{number}");
        }
        Numbered(text.into_inner())
    }
}

/// With at least one null at its end.
struct Numbered([u8; Name::LONGEST + 13]);

impl Numbered {
    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

fn above_streams(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    match fd.as_raw_fd() {
        0..3 => rustix::io::fcntl_dupfd_cloexec(&fd, 3),
        _ => Ok(fd),
    }
}

/// The lock tells readers that more may come, for as long as it is open.
fn open(directory: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_raw_mode(0o640))?;
    match flock(&file, FlockOperation::LockShared) {
        // A filesystem without locks: readers rely on what else they know.
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => Ok(file),
        Err(errno) => Err(errno),
    }
}

/// Whether somebody has the file open to write into it.
pub(super) fn is_written(file: &File) -> bool {
    let free = flock(file, FlockOperation::NonBlockingLockExclusive);
    let _ = flock(file, FlockOperation::Unlock);
    free == Err(Errno::WOULDBLOCK)
}

pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The files that a log was in before, from the oldest to the newest.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let number = |entry: fs::DirEntry| {
        let entry = entry.file_name();
        let rest = entry.as_encoded_bytes().strip_prefix(name.as_encoded_bytes())?;
        std::str::from_utf8(rest).ok()?.strip_prefix('.')?.parse::<u32>().ok()
    };
    let mut numbers: Vec<u32> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(number)
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.into_iter().map(|number| numbered(path, number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &mut Rotating, records: &[&str]) {
        for record in records {
            if log.is_full(0, record.len()) {
                log.rotate().expect("it makes room");
            }
            log.append(record.as_bytes()).expect("it is written");
        }
    }

    fn contents(log: &LogFile) -> Vec<String> {
        let all = files(log.path()).into_iter().chain([log.path().to_owned()]);
        all.map(|file| fs::read_to_string(file).expect("it is there")).collect()
    }

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).rotate(6, 3);
        let mut file = Rotating::open(&log).expect("it opens");
        write(&mut file, &["a\n", "b\n", "c\n", "d\n", "much too long\n", "e\n"]);
        assert_eq!(contents(&log), ["d\n", "much too long\n", "e\n"]);
        write(&mut file, &["f\n"]);
        drop(file);
        write(&mut Rotating::open(&log).expect("it opens again"), &["g\n", "h\n"]);
        assert_eq!(contents(&log), ["much too long\n", "e\nf\ng\n", "h\n"]);
    }

    #[test]
    fn one_file_begins_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).rotate(4, 1);
        write(&mut Rotating::open(&log).expect("it opens"), &["a\n", "b\n", "c\n"]);
        assert_eq!(contents(&log), ["c\n"]);
    }

    #[test]
    fn a_rotation_that_was_not_finished_loses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).rotate(2, 4);
        let path = log.path();
        // As after a kill between two renames: there is no second one, and nothing that is written now.
        fs::write(numbered(path, 3), "a\n").expect("a file");
        fs::write(numbered(path, 1), "b\n").expect("a file");
        write(&mut Rotating::open(&log).expect("it opens"), &["c\n", "d\n"]);
        assert_eq!(contents(&log), ["a\n", "b\n", "c\n", "d\n"]);
    }

    #[test]
    fn what_is_torn_does_not_spoil_what_follows() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log"));
        fs::write(log.path(), "{\"log\":\"tor").expect("a file");
        write(&mut Rotating::open(&log).expect("it opens"), &["next\n"]);
        assert_eq!(contents(&log), ["{\"log\":\"tor\nnext\n"]);
    }
}
