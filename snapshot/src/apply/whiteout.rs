use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use crate::apply::lower::Found;
use crate::apply::path::join;
use crate::apply::tree::{Missing, Tree};
use crate::remove::remove_all;
use crate::{Result, at};

/// Whiteouts hide what was there before this layer, never what the layer itself has, whichever comes first in the archive.
impl Tree {
    /// Hides `name` in `parent`.
    pub(super) fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        if !self.enter(parent, Missing::Stop)? {
            return Ok(());
        }
        match at::stat(&self.top().fd, name) {
            Ok(stat) if self.is_overlay() && at::is_whiteout(&stat) => return Ok(()),
            Ok(stat) if self.is_mine(&self.path_of_name(name)) => {
                if at::file_type(&stat) != FileType::Directory {
                    return Ok(());
                }
                let (dir, locked) = at::open_locked_dir(&self.top().fd, name).map_err(self.failed("opening", name))?;
                let path = self.path_of_name(name);
                if !matches!(self.find_below(name)?, Found::Nothing) {
                    self.hide_below(&dir, name)?;
                }
                self.purge(&dir, path)?;
                return at::lock_again(&dir, locked).map_err(self.failed("setting the mode of", name));
            }
            Ok(_) => self.discard(name).map_err(self.failed("removing", name))?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.failed("reading", name)(errno)),
        }
        if !matches!(self.find_below(name)?, Found::Nothing) {
            self.make_whiteout(name)?;
        }
        Ok(())
    }

    /// Hides everything in `parent`.
    pub(super) fn opaque(&mut self, parent: &[u8]) -> Result<()> {
        self.enter(parent, Missing::Create)?;
        let layers = self.layers_here()?;
        if !layers.is_empty() {
            if self.at_root() {
                self.hide_root(&layers)?;
            } else {
                let dir = self.another_fd()?;
                self.hide_below(&dir, b"")?;
            }
            self.cut_off_here();
        }
        let dir = self.another_fd()?;
        self.mark_here();
        self.here();
        self.purge(&dir, self.path_here())
    }

    /// Another descriptor of the directory entered last.
    fn another_fd(&self) -> Result<OwnedFd> {
        self.top().fd.try_clone().map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            self.failed("opening", b"")(errno)
        })
    }

    /// Overlay does not look at the mark on the root directory, so each name that the lower ones have there is hidden.
    fn hide_root(&mut self, layers: &[u16]) -> Result<()> {
        for layer in layers {
            let dir = self.lowers().open_at(*layer, b"", at::DIRECTORY)?;
            for (name, _) in at::list(&dir).map_err(self.failed("reading the lower", b""))? {
                let ours = match at::stat(&self.top().fd, &name) {
                    Ok(stat) => Some(at::file_type(&stat)),
                    Err(Errno::NOENT) => None,
                    Err(errno) => return Err(self.failed("reading", &name)(errno)),
                };
                match ours {
                    None => self.make_whiteout(&name)?,
                    Some(_) if !self.is_mine(&name) => {
                        self.discard(&name).map_err(self.failed("removing", &name))?;
                        self.make_whiteout(&name)?;
                    }
                    Some(FileType::Directory) => {
                        let opened = at::open_locked_dir(&self.top().fd, &name);
                        let (dir, locked) = opened.map_err(self.failed("opening", &name))?;
                        self.hide_below(&dir, &name)?;
                        at::lock_again(&dir, locked).map_err(self.failed("setting the mode of", &name))?;
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Makes an existing directory show nothing of the lower layers. Overlay shows the whiteouts of a directory that is not merged as names
    /// of files that can't be found, so those that are in it go.
    fn hide_below(&mut self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        self.make_opaque(dir).map_err(self.failed("marking as opaque", name))?;
        let removed = remove_whiteouts(dir).map_err(self.failed("clearing of whiteouts", name))?;
        self.usage.whiteouts_removed(removed);
        Ok(())
    }

    fn make_whiteout(&mut self, name: &[u8]) -> Result<()> {
        rustix::fs::mknodat(self.here(), name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(self.failed("making the whiteout of", name))?;
        self.usage.made();
        Ok(())
    }

    /// Removes from a directory what is not of this layer. When the target was empty at first, everything is.
    fn purge(&mut self, dir: &OwnedFd, path: Vec<u8>) -> Result<()> {
        if self.mine.is_none() && self.brought.is_empty() {
            return Ok(());
        }
        let root = self.root.clone();
        let failed = |path: &[u8]| at::failed("clearing", root.join(super::os(path)));
        let names = at::list(dir).map_err(failed(&path))?;
        let mut open = vec![(at::open_dir(dir, b".").map_err(failed(&path))?, path, names)];
        while let Some((dir, path, names)) = open.last_mut() {
            let Some((name, _)) = names.pop() else {
                open.pop();
                continue;
            };
            let inner = join(path, &name);
            // Whiteouts at the root stay: they are how its marker is kept.
            let whiteout = path.is_empty()
                && self.is_overlay()
                && at::is_whiteout(&at::stat(&*dir, &name).map_err(failed(&inner))?);
            if !whiteout && !self.is_mine(&inner) {
                self.usage.about_to_remove(&*dir, &name);
                remove_all(&*dir, &name).map_err(failed(&inner))?;
                continue;
            }
            match at::open_dir(dir.as_fd(), &name) {
                Ok(fd) => {
                    let names = at::list(&fd).map_err(failed(&inner))?;
                    open.push((fd, inner, names));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(failed(&inner)(errno)),
            }
        }
        Ok(())
    }
}

/// Removes all whiteouts below a directory, and tells how many they were.
fn remove_whiteouts(dir: &OwnedFd) -> rustix::io::Result<u64> {
    let mut removed = 0;
    let mut open = vec![(at::open_dir(dir, b".")?, at::list(dir)?)];
    while let Some((dir, names)) = open.last_mut() {
        match names.pop() {
            Some((name, FileType::CharacterDevice | FileType::Unknown))
                if at::is_whiteout(&at::stat(&*dir, &name)?) =>
            {
                rustix::fs::unlinkat(dir, &name, rustix::fs::AtFlags::empty())?;
                removed += 1;
            }
            Some((name, FileType::Directory | FileType::Unknown)) => match at::open_dir(&*dir, &name) {
                Ok(inner) => {
                    let names = at::list(&inner)?;
                    open.push((inner, names));
                }
                // The caller's own directory that bars the caller can't hold a whiteout worth the trouble.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
                Err(errno) => return Err(errno),
            },
            Some(_) => {}
            None => {
                open.pop();
            }
        }
    }
    Ok(removed)
}
