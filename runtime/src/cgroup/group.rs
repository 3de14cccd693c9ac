use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// The most that is read of a file: none of the kernel's is longer but for lists of processes.
const MAX_READ: usize = 64 * 1024 * 1024;

/// Room for a file of figures; the longest is `memory.stat`.
const FIGURES: usize = 8192;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A group's directory, by descriptor.
#[derive(Debug)]
pub(super) struct Group {
    /// Or why it could not be opened, which everything then answers: `ENOENT` for a group that is gone.
    dir: Result<OwnedFd, Errno>,
    /// For messages only.
    pub(super) path: PathBuf,
}

impl Group {
    /// Opens a hierarchy by its mount point.
    pub(super) fn root(mount_point: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = rustix::fs::open(mount_point, flags, Mode::empty())
            .map_err(|e| failed(mount_point, "open the hierarchy", e))?;
        Ok(Self {
            dir: Ok(dir),
            path: mount_point.to_path_buf(),
        })
    }

    /// Its directory.
    pub(super) fn dir(&self) -> Result<BorrowedFd<'_>, Errno> {
        match &self.dir {
            Ok(dir) => Ok(dir.as_fd()),
            Err(errno) => Err(*errno),
        }
    }

    /// The same, for good.
    pub(super) fn into_dir(self) -> Result<OwnedFd, Errno> {
        self.dir
    }

    /// Its number, which the kernel gives to no other group as long as the machine runs.
    pub(super) fn inode(&self) -> Result<u64, Errno> {
        Ok(rustix::fs::fstat(self.dir()?)?.st_ino)
    }

    /// Opens a group beneath this one, if it is the one with that number: another one of the same name is as good as none.
    pub(super) fn open_as(&self, relative: &Path, inode: Option<u64>) -> Self {
        let path = self.path.join(relative);
        let dir = self.open_beneath(relative).and_then(|dir| {
            let is_it = match inode {
                Some(inode) => rustix::fs::fstat(&dir)?.st_ino == inode,
                None => true,
            };
            is_it.then_some(dir).ok_or(Errno::NOENT)
        });
        Self { dir, path }
    }

    fn open_beneath(&self, relative: &Path) -> Result<OwnedFd, Errno> {
        let relative = match relative.as_os_str().is_empty() {
            true => Path::new("."),
            false => relative,
        };
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(self.dir()?, relative, flags, Mode::empty(), BENEATH)
    }

    /// Opens a group beneath this one; `None` if it does not exist.
    pub(super) fn find(&self, relative: &Path) -> Result<Option<Self>> {
        let path = self.path.join(relative);
        match self.open_beneath(relative) {
            Ok(dir) => Ok(Some(Self { dir: Ok(dir), path })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(failed(&path, "open the group", e)),
        }
    }

    /// Makes a group in this one and tells whether it was not there before.
    pub(super) fn make(&self, name: &OsStr) -> io::Result<bool> {
        match rustix::fs::mkdirat(self.dir()?, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an empty group in this one.
    pub(super) fn unmake(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::unlinkat(self.dir()?, name, AtFlags::REMOVEDIR)
    }

    /// Opens one of the group's files.
    pub(super) fn open(&self, file: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(
            self.dir()?,
            file,
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            BENEATH,
        )
    }

    /// Whether it has a file. A group that is gone has none.
    pub(super) fn has(&self, file: &str) -> Result<bool> {
        let stat = self
            .dir()
            .and_then(|dir| rustix::fs::statat(dir, file, AtFlags::SYMLINK_NOFOLLOW));
        match stat {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            Err(errno) => Err(failed(&self.path.join(file), "look for", errno)),
        }
    }

    /// Writes a file in one piece, as the kernel wants it.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        let fd = self.open(file, OFlags::WRONLY)?;
        rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map(drop)
    }

    /// Writes lines to a file, each in one piece; opens it once. Returns the line that failed.
    pub(super) fn write_lines<'a>(
        &self,
        file: &str,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), (Option<&'a str>, Errno)> {
        let fd = self.open(file, OFlags::WRONLY).map_err(|errno| (None, errno))?;
        for line in lines {
            rustix::io::retry_on_intr(|| rustix::io::write(&fd, line.as_bytes()))
                .map_err(|errno| (Some(line), errno))?;
        }
        Ok(())
    }

    /// Reads a file; `None` if the group or this kernel does not have it.
    pub(super) fn read(&self, file: &str) -> Result<Option<String>> {
        let fd = match self.open(file, OFlags::RDONLY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
            Err(e) => return Err(failed(&self.path.join(file), "open", e)),
        };
        let mut bytes = Vec::new();
        let mut limited = io::Read::take(std::fs::File::from(fd), MAX_READ as u64);
        match io::Read::read_to_end(&mut limited, &mut bytes) {
            Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            // A group that is gone while it is read, or a controller that does not answer here.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NODEV | Errno::OPNOTSUPP)) => Ok(None),
            Err(source) => Err(Error::Cgroup {
                path: self.path.join(file),
                action: "read".into(),
                source,
            }),
        }
    }

    /// What a file of figures says, by one read into memory that is there already; `None` as with [`read`](Self::read). Such a file is made at once, so that what does not
    /// fill the room is all of it.
    pub(super) fn figures<T>(&self, file: &str, take: impl FnOnce(&str) -> T) -> Result<Option<T>> {
        let mut room = [0; FIGURES];
        let read = self
            .open(file, OFlags::RDONLY)
            .and_then(|fd| rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut room)));
        match read {
            Ok(length) if length < room.len() => Ok(Some(take(&String::from_utf8_lossy(&room[..length])))),
            Ok(_) => Ok(self.read(file)?.map(|text| take(&text))),
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(failed(&self.path.join(file), "read", errno)),
        }
    }

    /// All files and groups inside.
    pub(super) fn entries(&self) -> Result<Dir, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Dir::new(rustix::fs::openat(self.dir()?, ".", flags, Mode::empty())?)
    }

    /// The names of the groups inside; none of a group that is gone.
    pub(super) fn children(&self) -> Result<Vec<PathBuf>> {
        let fault = |e| failed(&self.path, "list the groups inside", e);
        let mut names = Vec::new();
        let entries = match self.entries() {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(names),
            entries => entries.map_err(fault)?,
        };
        for entry in entries {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                names.push(PathBuf::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name)));
            }
        }
        Ok(names)
    }
}

/// An error on a file or group.
pub(super) fn failed(path: &Path, action: impl Into<String>, errno: Errno) -> Error {
    Error::Cgroup {
        path: path.to_path_buf(),
        action: action.into(),
        source: errno.into(),
    }
}
