//! Paths inside the root being assembled, resolved by descriptor: whatever symlinks the image has, nothing outside is touched.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat_raw};
use rustix::io::Errno;

use super::report::{At, Call, Failure};
use crate::plan::op::InRoot;

/// A rename or mount anywhere on the machine may make the kernel unsure about a `..`; it says so and wants to be asked again.
const TRIES: u32 = 10_000;
/// How many symbolic links that lead nowhere are followed on one path, as many as the kernel does.
const LINKS: u32 = 40;
/// The longest path, with its end (limits.h).
const PATH_MAX: usize = 4096;
/// The longest name, with its end.
const NAME_MAX: usize = 256;

const NEW_FILE: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::WRONLY);

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

/// A mount point.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) fd: OwnedFd,
    /// Whether it was there before.
    pub(super) found: bool,
}

/// What the last name of a path is made as when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Directory,
    File,
}

/// Opens whatever is at a path, making it and what is missing on the way.
pub(super) fn point(root: impl AsFd, path: &InRoot, last: Last) -> Result<Point, Failure> {
    match open_in_root(&root, path.whole(), OFlags::PATH) {
        Err(Errno::NOENT) => {
            let made = make_only_the_last(&root, path, last).map_or_else(|| make(&root, path.whole(), last), Ok);
            made.map(|fd| Point { fd, found: false })
        }
        answer => answer.map(|fd| Point { fd, found: true }).at(Call::OpenTarget),
    }
}

/// Opens a directory, making what is missing on the way.
pub(super) fn directory(root: impl AsFd, path: &InRoot) -> Result<OwnedFd, Failure> {
    match open_in_root(&root, path.whole(), OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => make_only_the_last(&root, path, Last::Directory)
            .map_or_else(|| make(root, path.whole(), Last::Directory), Ok),
        answer => answer.at(Call::OpenTarget),
    }
}

/// The same for any path beneath the root.
pub(super) fn directory_at(root: impl AsFd, path: &CStr) -> Result<OwnedFd, Failure> {
    match open_in_root(&root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => make(root, path, Last::Directory),
        answer => answer.at(Call::OpenTarget),
    }
}

/// The directory of a path, made if it is missing, and the name in it.
fn parent(root: impl AsFd, path: &InRoot) -> Result<(OwnedFd, &CStr), Failure> {
    let (above, name) = path.split().ok_or(Errno::ISDIR).at(Call::OpenTarget)?;
    Ok((directory_at(root, above)?, name))
}

/// The same for what the runtime itself reads and writes by name afterwards: no symbolic link may lead there, or the image would
/// decide where it is (CVE-2019-19921, CVE-2023-27561).
pub(super) fn directory_itself(root: impl AsFd, path: &InRoot) -> Result<OwnedFd, Failure> {
    let open = |path: &CStr| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        open_resolving(&root, path, OFlags::PATH | OFlags::DIRECTORY, resolve)
    };
    match open(path.whole()) {
        Err(Errno::NOENT) => {}
        answer => return answer.at(Call::NotItself),
    }
    let mut parent = open(c".").at(Call::NotItself)?;
    for (name, prefix) in path.names.iter().zip(&path.prefixes) {
        let found = match open(prefix) {
            Err(Errno::NOENT) => {
                make_directory(&parent, name)?;
                open(prefix)
            }
            answer => answer,
        };
        parent = found.at(Call::NotItself)?;
    }
    Ok(parent)
}

/// Opens a file of any kind, making an empty one when there is none.
pub(super) fn file(root: impl AsFd, path: &InRoot) -> Result<OwnedFd, Failure> {
    point(root, path, Last::File).map(|point| point.fd)
}

/// The same for what the runtime itself puts there: its name is no symbolic link, which could lead to a file that must stay as it is
/// (CVE-2025-52565).
pub(super) fn file_itself(root: impl AsFd, path: &InRoot) -> Result<OwnedFd, Failure> {
    let (parent, name) = parent(root, path)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    for _ in 0..TRIES {
        match open_resolving(&parent, name, OFlags::PATH, resolve) {
            Err(Errno::NOENT) => make_file(&parent, name)?,
            answer => return answer.at(Call::NoLink),
        }
    }
    Err(Errno::AGAIN).at(Call::OpenTarget)
}

/// Whether the descriptor is of a directory.
pub(super) fn is_directory(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Walks to a path, name by name, and makes what is missing. A symbolic link that leads to what is not there is replaced by its text, as
/// the kernel would follow it with `root` as the root directory; so each open is by the kernel's own rules and none leaves the root.
fn make(root: impl AsFd, path: &CStr, last: Last) -> Result<OwnedFd, Failure> {
    let top = || open_in_root(&root, c".", OFlags::PATH | OFlags::DIRECTORY).at(Call::OpenTarget);
    let mut way = Way::new(path).at(Call::OpenTarget)?;
    let mut here = top()?;
    let mut links = 0;
    // What others put there and take away meanwhile makes it try again.
    for _ in 0..TRIES {
        let Some(next) = way.next() else { return Ok(here) };
        let is_last = way.is_last(&next);
        let kind = if is_last { OFlags::empty() } else { OFlags::DIRECTORY };
        match way.up_to(next.end, |path| open_in_root(&root, path, OFlags::PATH | kind)) {
            Err(Errno::NOENT) => {}
            answer => {
                here = answer.at(Call::OpenTarget)?;
                way.done = next.end;
                continue;
            }
        }
        let mut name = [0; NAME_MAX];
        let name = way.name(&next, &mut name).at(Call::MakeTarget)?;
        let mut target = [0u8; PATH_MAX];
        match readlinkat_raw(&here, name, &mut target[..]) {
            Ok(length) => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP).at(Call::OpenTarget);
                }
                let target = target.get(..length).unwrap_or_default();
                way.follow(&next, target).at(Call::OpenTarget)?;
                if target.first() == Some(&b'/') {
                    here = top()?;
                }
            }
            Err(Errno::NOENT) if is_last && last == Last::File => make_file(&here, name)?,
            Err(Errno::NOENT) => make_directory(&here, name)?,
            // Something that is no link has come up meanwhile.
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).at(Call::OpenTarget),
        }
    }
    Err(Errno::AGAIN).at(Call::OpenTarget)
}

/// The common case in few calls: all but the last name is there, and that is no symbolic link.
fn make_only_the_last(root: impl AsFd, path: &InRoot, last: Last) -> Option<OwnedFd> {
    let (parent, name) = path.split()?;
    let parent = open_in_root(&root, parent, OFlags::PATH | OFlags::DIRECTORY).ok()?;
    match last {
        Last::Directory => mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
        Last::File => openat(&parent, name, NEW_FILE, Mode::from_raw_mode(0o644)).map(drop),
    }
    .ok()?;
    open_in_root(root, path.whole(), OFlags::PATH).ok()
}

fn make_directory(parent: impl AsFd, name: &CStr) -> Result<(), Failure> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        answer => answer.at(Call::MakeTarget),
    }
}

fn make_file(parent: impl AsFd, name: &CStr) -> Result<(), Failure> {
    match openat(parent, name, NEW_FILE, Mode::from_raw_mode(0o644)) {
        Err(Errno::EXIST) => Ok(()),
        answer => answer.map(drop).at(Call::MakeTarget),
    }
}

/// A path that is being walked, on the stack.
struct Way {
    text: [u8; PATH_MAX],
    length: usize,
    /// How much of it leads to where the walk is.
    done: usize,
}

impl Way {
    fn new(path: &CStr) -> Result<Self, Errno> {
        let bytes = path.to_bytes();
        let mut text = [0; PATH_MAX];
        let place = text.get_mut(..bytes.len()).filter(|p| p.len() < PATH_MAX);
        place.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        Ok(Self {
            text,
            length: bytes.len(),
            done: 0,
        })
    }

    /// Where the next name is.
    fn next(&self) -> Option<Range<usize>> {
        let rest = self.text.get(self.done..self.length)?;
        let start = self.done + rest.iter().position(|b| *b != b'/')?;
        let rest = self.text.get(start..self.length)?;
        let end = rest
            .iter()
            .position(|b| *b == b'/')
            .map_or(self.length, |at| start + at);
        Some(start..end)
    }

    fn is_last(&self, name: &Range<usize>) -> bool {
        self.text
            .get(name.end..self.length)
            .is_none_or(|rest| rest.iter().all(|b| *b == b'/'))
    }

    /// The name there, with its end.
    fn name<'a>(&self, name: &Range<usize>, space: &'a mut [u8; NAME_MAX]) -> Result<&'a CStr, Errno> {
        let bytes = self.text.get(name.clone()).unwrap_or_default();
        let place = space.get_mut(..bytes.len()).filter(|p| p.len() < NAME_MAX);
        place.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        CStr::from_bytes_until_nul(space).map_err(|_| Errno::NAMETOOLONG)
    }

    /// Calls with the path up to there.
    fn up_to<T>(&mut self, end: usize, call: impl FnOnce(&CStr) -> Result<T, Errno>) -> Result<T, Errno> {
        let kept = std::mem::replace(self.text.get_mut(end).ok_or(Errno::NAMETOOLONG)?, 0);
        let answer = match CStr::from_bytes_until_nul(&self.text) {
            Ok(path) => call(path),
            Err(_) => Err(Errno::NAMETOOLONG),
        };
        self.text[end] = kept;
        answer
    }

    /// Puts what a link says in the place of its name.
    fn follow(&mut self, name: &Range<usize>, target: &[u8]) -> Result<(), Errno> {
        let absolute = target.first() == Some(&b'/');
        let base = if absolute { 0 } else { name.start };
        let rest = self.length - name.end;
        let end = base + target.len();
        if target.is_empty() || end + rest >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.text.copy_within(name.end..self.length, end);
        self.text[base..end].copy_from_slice(target);
        self.length = end + rest;
        if absolute {
            self.done = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
