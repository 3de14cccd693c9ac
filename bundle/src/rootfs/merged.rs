//! One tree out of several directories, upper ones first, with the rules of overlayfs
//! (Documentation/filesystems/overlayfs.rst): what is above hides what is below, directories merge, whiteouts and
//! opaque directories end the search.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;
/// Lookups of one resolution; an honest path takes about five.
const MAX_LOOKUPS: usize = 2048;

/// The directories of a merged tree.
#[derive(Debug)]
pub(super) struct Merged {
    /// Uppermost first; never empty.
    layers: Vec<OwnedFd>,
    overlay: Option<Overlay>,
}

/// Where overlayfs keeps its marks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Overlay {
    /// `trusted.overlay.*`.
    Trusted,
    /// `user.overlay.*`, with mount option `userxattr`.
    User,
}

/// What a lookup came to.
enum Found {
    File(OwnedFd),
    Link(PathBuf),
    Directory(Vec<OwnedFd>),
}

/// Why a resolution failed.
#[derive(Debug)]
pub(super) enum Failure {
    Loop,
    System(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Where a resolution stands.
struct Walk<'a> {
    merged: &'a Merged,
    /// Names from the root to here, none of them a link.
    names: Vec<OsString>,
    /// The directories that merge into the one here; `None` is the root.
    here: Option<Vec<OwnedFd>>,
    lookups: usize,
}

impl Merged {
    pub(super) fn new(layers: Vec<OwnedFd>, overlay: Option<Overlay>) -> Self {
        Self { layers, overlay }
    }

    /// Finds what is at `path` and is no directory, as an `O_PATH` descriptor. Symbolic links, absolute ones too,
    /// stay inside the tree.
    ///
    /// Every name is looked up by descriptor and without following it, so that a tree that changes meanwhile can't
    /// lead out either.
    pub(super) fn find(&self, path: &Path) -> Result<Option<OwnedFd>, Failure> {
        let mut walk = Walk {
            merged: self,
            names: Vec::new(),
            here: None,
            lookups: 0,
        };
        let mut pending: Vec<OsString> = names_of(path);
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                walk.up()?;
                continue;
            }
            match walk.lookup(&name)? {
                None => return Ok(None),
                Some(Found::Directory(layers)) => walk.down(name, layers),
                Some(Found::File(file)) if pending.is_empty() => return Ok(Some(file)),
                Some(Found::File(_)) => return Ok(None),
                Some(Found::Link(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Failure::Loop);
                    }
                    if target.is_absolute() {
                        walk.restart();
                    }
                    pending.extend(names_of(&target));
                }
            }
        }
        Ok(None)
    }

    fn lookup_in(&self, directories: &[OwnedFd], name: &OsStr) -> Result<Option<Found>, Errno> {
        let mut merged = Vec::new();
        for (depth, directory) in directories.iter().enumerate() {
            let Some((entry, kind)) = open_entry(directory.as_fd(), name)? else {
                continue;
            };
            if self.is_whiteout(entry.as_fd(), kind)? {
                break;
            }
            match kind {
                FileType::Directory => {
                    let opaque = depth + 1 < directories.len() && self.is_opaque(entry.as_fd())?;
                    merged.push(entry);
                    if opaque {
                        break;
                    }
                }
                // Below a directory, something else is hidden and ends the merging.
                _ if !merged.is_empty() => break,
                FileType::Symlink => return read_link(entry.as_fd()).map(|target| Some(Found::Link(target))),
                _ => return Ok(Some(Found::File(entry))),
            }
        }
        Ok((!merged.is_empty()).then_some(Found::Directory(merged)))
    }

    fn is_whiteout(&self, entry: BorrowedFd<'_>, kind: FileType) -> Result<bool, Errno> {
        let Some(overlay) = self.overlay else { return Ok(false) };
        match kind {
            FileType::CharacterDevice => Ok(fstat(entry)?.st_rdev == 0),
            FileType::RegularFile if fstat(entry)?.st_size == 0 => {
                Ok(mark(entry, overlay.attribute("whiteout"))?.is_some())
            }
            _ => Ok(false),
        }
    }

    fn is_opaque(&self, directory: BorrowedFd<'_>) -> Result<bool, Errno> {
        let Some(overlay) = self.overlay else { return Ok(false) };
        Ok(mark(directory, overlay.attribute("opaque"))? == Some(b'y'))
    }
}

impl Walk<'_> {
    fn lookup(&mut self, name: &OsStr) -> Result<Option<Found>, Failure> {
        self.lookups += 1;
        if self.lookups > MAX_LOOKUPS {
            return Err(Failure::Loop);
        }
        let directories = self.here.as_deref().unwrap_or(&self.merged.layers);
        Ok(self.merged.lookup_in(directories, name)?)
    }

    fn down(&mut self, name: OsString, layers: Vec<OwnedFd>) {
        self.names.push(name);
        self.here = Some(layers);
    }

    fn restart(&mut self) {
        self.names.clear();
        self.here = None;
    }

    /// Descends anew to the parent: cheaper in descriptors than keeping one for each directory above, of which a
    /// hostile tree has many.
    fn up(&mut self) -> Result<(), Failure> {
        let mut names = std::mem::take(&mut self.names);
        names.pop();
        self.here = None;
        for name in names {
            match self.lookup(&name)? {
                Some(Found::Directory(layers)) => self.down(name, layers),
                _ => return Err(Failure::System(Errno::STALE)),
            }
        }
        Ok(())
    }
}

impl Overlay {
    fn attribute(self, name: &str) -> String {
        match self {
            Self::Trusted => format!("trusted.overlay.{name}"),
            Self::User => format!("user.overlay.{name}"),
        }
    }
}

/// The names of a path, last one first; `..` among them, `.` and slashes not.
fn names_of(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect::<Vec<_>>().into_iter().rev().collect()
}

/// Looks one name up without following or opening what it names.
fn open_entry(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<(OwnedFd, FileType)>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(entry) => {
            let kind = FileType::from_raw_mode(fstat(&entry)?.st_mode);
            Ok(Some((entry, kind)))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn read_link(link: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    let target = readlinkat(link, "", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// The first byte of an extended attribute. An `O_PATH` descriptor has none, so the way leads through procfs, which
/// pins the same inode.
fn mark(entry: BorrowedFd<'_>, name: String) -> Result<Option<u8>, Errno> {
    let mut value = [0; 8];
    match rustix::fs::getxattr(proc_path(entry), name, &mut value[..]) {
        Ok(0) => Ok(Some(0)),
        Ok(_) => Ok(Some(value[0])),
        Err(Errno::RANGE) => Ok(Some(0)),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The path by which a descriptor of our own can be opened again.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(OsStr::from_bytes(fd.as_raw_fd().to_string().as_bytes()))
}
