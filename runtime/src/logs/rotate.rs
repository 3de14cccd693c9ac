use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::LogFile;
use crate::Result;
use crate::host::io_error;

/// A log that is written, and makes room when it is full.
#[derive(Debug)]
pub(crate) struct Rotating {
    log: LogFile,
    file: File,
    size: u64,
    /// Whether the last record in the file is not whole: the disk was full, or its writer was killed.
    torn: bool,
}

impl Rotating {
    /// Opens a log to go on with it; it is made, with mode 0640, if it is not there.
    pub(crate) fn open(log: &LogFile) -> Result<Self> {
        let fail = || io_error(format!("open the log {}", log.path.display()));
        let mut file = open(&log.path).map_err(fail())?;
        let size = file.seek(SeekFrom::End(0)).map_err(fail())?;
        let torn = size > 0 && last_byte(&mut file).map_err(fail())? != b'\n';
        Ok(Self {
            log: log.clone(),
            file,
            size,
            torn,
        })
    }

    /// Writes records, which end where `ends` says; those that fit in the same file by one call, so that none mix.
    pub(crate) fn write(&mut self, records: &[u8], ends: &[usize]) -> io::Result<()> {
        let (mut begin, mut end) = (0, 0);
        for next in ends {
            let room = self
                .log
                .limit
                .is_none_or(|limit| self.size + (next - begin) as u64 <= limit);
            if !room && self.size + (end - begin) as u64 > 0 {
                self.append(&records[begin..end])?;
                self.rotate()?;
                begin = end;
            }
            end = *next;
        }
        self.append(&records[begin..end])
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if std::mem::replace(&mut self.torn, true) {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        self.file.write_all(bytes)?;
        self.torn = false;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Killed at any point, nothing but the oldest file is lost, and the order of the others is theirs by number.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.log.path;
        if self.log.files == 1 {
            // A reader sees another file, not one that has become shorter.
            fs::remove_file(path)?;
        } else {
            // Up to the first number that is free, as one may be after a rotation that was not finished.
            let last = (1..self.log.files - 1)
                .find(|number| !numbered(path, *number).exists())
                .unwrap_or(self.log.files - 1);
            for number in (1..last).rev() {
                fs::rename(numbered(path, number), numbered(path, number + 1))?;
            }
            fs::rename(path, numbered(path, 1))?;
        }
        self.file = open(path)?;
        self.size = 0;
        self.torn = false;
        Ok(())
    }
}

/// The lock tells readers that more may come, for as long as it is open.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    match flock(&file, FlockOperation::LockShared) {
        // A filesystem without locks: readers rely on what else they know.
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => Ok(file),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether somebody has the file open to write into it.
pub(super) fn is_written(file: &File) -> bool {
    let free = flock(file, FlockOperation::NonBlockingLockExclusive);
    let _ = flock(file, FlockOperation::Unlock);
    free == Err(Errno::WOULDBLOCK)
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
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
        let mut ends = Vec::new();
        let text = records.iter().fold(String::new(), |mut text, record| {
            text.push_str(record);
            ends.push(text.len());
            text
        });
        log.write(text.as_bytes(), &ends).expect("it is written");
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
