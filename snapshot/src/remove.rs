use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::at;

/// How many directories are held open at once; deeper ones are moved up first.
const OPEN_MAX: usize = 64;

/// Removes `name` in `dir` and all that is in it, following no symbolic link. What is not there is no error.
///
/// The tree may be of any depth: a container can make one that is deeper than the descriptors that a process may have.
pub(crate) fn remove_all(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    if let Some(level) = remove_or_open(dir, name, FileType::Unknown)? {
        Removal {
            dir,
            open: vec![level],
            moved: 0,
        }
        .run()?;
    }
    Ok(())
}

struct Level {
    fd: OwnedFd,
    name: Vec<u8>,
    rest: Vec<(Vec<u8>, FileType)>,
}

struct Removal<'a> {
    dir: BorrowedFd<'a>,
    /// From the top of the tree down to where we are; never empty while it runs.
    open: Vec<Level>,
    moved: u64,
}

impl Removal<'_> {
    fn run(mut self) -> rustix::io::Result<()> {
        loop {
            let depth = self.open.len();
            let Some(level) = self.open.last_mut() else {
                return Ok(());
            };
            match level.rest.pop() {
                Some((name, kind)) if depth >= OPEN_MAX => self.shallow(name, kind)?,
                Some((name, kind)) => {
                    let next = remove_or_open(level.fd.as_fd(), &name, kind)?;
                    self.open.extend(next);
                }
                None => self.close()?,
            }
        }
    }

    /// Removes the innermost directory, which has been emptied.
    fn close(&mut self) -> rustix::io::Result<()> {
        let Some(done) = self.open.pop() else { return Ok(()) };
        let parent = self.open.last().map_or(self.dir, |level| level.fd.as_fd());
        ignore_missing(rustix::fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR))
    }

    /// Removes a file; moves a directory that is not empty to the top of the tree, to be gone through later.
    fn shallow(&mut self, name: Vec<u8>, kind: FileType) -> rustix::io::Result<()> {
        let here = self.open.last().expect("called with open directories").fd.as_fd();
        if removed(here, &name, kind)? {
            return Ok(());
        }
        let top = &self.open[0];
        loop {
            let new_name = format!(".deep-{}", self.moved).into_bytes();
            self.moved += 1;
            match rustix::fs::renameat(here, &name, &top.fd, &new_name) {
                Ok(()) => {
                    self.open[0].rest.push((new_name, FileType::Directory));
                    return Ok(());
                }
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => continue,
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Removes `name`, or opens it if it is a directory with something in it.
fn remove_or_open(dir: BorrowedFd<'_>, name: &[u8], kind: FileType) -> rustix::io::Result<Option<Level>> {
    if removed(dir, name, kind)? {
        return Ok(None);
    }
    let fd = match at::open_locked_dir(dir, name) {
        Ok((fd, _)) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if !rustix::process::geteuid().is_root() {
        // A directory that its owner may not write to can't be emptied; if this fails, removing says so.
        let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
    }
    let rest = at::list(&fd)?;
    Ok(Some(Level {
        fd,
        name: name.to_vec(),
        rest,
    }))
}

/// Removes `name` unless it is a directory that is not empty.
fn removed(dir: BorrowedFd<'_>, name: &[u8], kind: FileType) -> rustix::io::Result<bool> {
    if kind != FileType::Directory {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn ignore_missing(answer: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match answer {
        Err(Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_depth_and_no_link_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        let kept = temp.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        let base = rustix::fs::open(temp.path(), at::DIRECTORY, Mode::empty()).unwrap();

        rustix::fs::mkdirat(&base, "tree", Mode::RWXU).unwrap();
        let mut dir = at::open_dir(&base, b"tree").unwrap();
        for level in 0..3000 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            if level % 500 == 0 {
                rustix::fs::symlinkat("/proc/self/cwd", &dir, "link").unwrap();
                rustix::fs::symlinkat(&kept, &dir, "kept").unwrap();
                rustix::fs::mkdirat(&dir, ".deep-0", Mode::RWXU).unwrap();
            }
            dir = at::open_dir(&dir, b"d").unwrap();
        }
        drop(dir);
        remove_all(&base, b"tree").unwrap();
        assert_eq!(at::list(&base).unwrap().len(), 1);
        assert!(kept.join("file").exists());
        remove_all(&base, b"tree").unwrap();
    }
}
