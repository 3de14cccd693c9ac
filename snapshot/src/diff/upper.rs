use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;

use crate::apply::lower::{self, Layer, Lowers};
use crate::apply::path::join;
use crate::diff::found::{Found, What};
use crate::diff::{ChangeKind, is_reserved, same_description};
use crate::mounts::Marks;
use crate::{Error, Result, at};

/// Looks through the topmost directory of an overlay: what is in it is what changed. The layers below are only looked into for what the names there were.
pub(super) struct Upper {
    root: OwnedFd,
    path: PathBuf,
    lowers: Option<Lowers>,
    marks: &'static Marks,
    found: Found,
    /// Directories to look through.
    todo: Vec<Dir>,
}

/// A directory to look through.
struct Dir {
    path: Vec<u8>,
    /// Where there are directories below it.
    layers: Vec<Layer>,
    /// It shows nothing of them.
    cut: bool,
}

impl Upper {
    pub(super) fn open(path: &Path, lowers: &[PathBuf], marks: &'static Marks) -> Result<Self> {
        let root = rustix::fs::open(path, at::DIRECTORY, Mode::empty()).map_err(at::failed("opening", path))?;
        let lowers = match lowers {
            [] => None,
            dirs => Some(Lowers::open(dirs, marks.opaque)?),
        };
        Ok(Self {
            root,
            path: path.to_owned(),
            lowers,
            marks,
            found: Found::default(),
            todo: Vec::new(),
        })
    }

    pub(super) fn look(mut self) -> Result<Found> {
        let layers = self.lowers.as_ref().map(Lowers::all).unwrap_or_default();
        if self.root_differs()? {
            self.found.add(Vec::new(), What::Put(ChangeKind::Changed));
        }
        self.todo.push(Dir {
            path: Vec::new(),
            layers,
            cut: false,
        });
        while let Some(dir) = self.todo.pop() {
            self.look_into(&dir)?;
        }
        Ok(self.found)
    }

    fn look_into(&mut self, dir: &Dir) -> Result<()> {
        let name: &[u8] = if dir.path.is_empty() { b"." } else { &dir.path };
        let fd = match at::open_below(&self.root, name, at::DIRECTORY) {
            // It went away, or became something else, while we looked.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            answer => answer.map_err(self.failed("opening", &dir.path))?,
        };
        let names = at::list(&fd).map_err(self.failed("reading", &dir.path))?;
        if dir.cut {
            self.hidden(dir, &names)?;
        }
        for (name, kind) in names {
            self.look_at(dir, &fd, &name, kind)?;
        }
        Ok(())
    }

    fn look_at(&mut self, dir: &Dir, fd: &OwnedFd, name: &[u8], kind: FileType) -> Result<()> {
        let path = join(&dir.path, name);
        if is_reserved(name) {
            self.found.left_out.names += 1;
            return Ok(());
        }
        let kind = match kind {
            FileType::Unknown | FileType::CharacterDevice | FileType::RegularFile => match at::stat(fd, name) {
                Ok(stat) if at::is_whiteout(&stat) => return self.whiteout(dir, path),
                Ok(stat) => {
                    self.check_file(fd, name, &path, &stat)?;
                    at::file_type(&stat)
                }
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(self.failed("reading", &path)(errno)),
            },
            kind => kind,
        };
        let below = self.below(dir, &path)?;
        match (kind, &below) {
            (FileType::Socket, _) => {
                self.found.left_out.sockets += 1;
                if !matches!(below, lower::Found::Nothing) {
                    self.found.add(path, What::Gone);
                }
            }
            (FileType::Directory, _) => self.directory(dir, fd, name, path, below)?,
            (_, lower::Found::Nothing) => self.found.add(path, What::Put(ChangeKind::Added)),
            _ => self.found.add(path, What::Put(ChangeKind::Changed)),
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: &Dir,
        parent_fd: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        below: lower::Found,
    ) -> Result<()> {
        let fd = match at::open_dir(parent_fd, name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            answer => answer.map_err(self.failed("opening", &path))?,
        };
        let redirected = at::has_xattr(fd.as_fd(), b".", self.marks.redirect);
        if self.lowers.is_some() && redirected.map_err(self.failed("reading", &path))? {
            return Err(unrepresentable(
                &path,
                "overlay renamed it without copying it (redirect_dir); mount with redirect_dir=off",
            ));
        }
        let opaque = at::small_xattr(&fd, self.marks.opaque).map_err(self.failed("reading", &path))?;
        let marked = self.lowers.is_some() && opaque.as_deref() == Some(b"y");
        let kind = match below {
            lower::Found::Nothing => ChangeKind::Added,
            _ => ChangeKind::Changed,
        };
        let (layers, cut) = match below {
            lower::Found::Directory(layers) => (layers, parent.cut || marked),
            _ => (Vec::new(), false),
        };
        let what = match marked && cut {
            true => What::PutOpaque(kind),
            false => What::Put(kind),
        };
        self.found.add(path.clone(), what);
        self.todo.push(Dir { path, layers, cut });
        Ok(())
    }

    /// A whiteout counts when it hides something.
    fn whiteout(&mut self, dir: &Dir, path: Vec<u8>) -> Result<()> {
        if self.lowers.is_none() {
            // A plain directory: the device that nobody may have in a layer, because overlay takes it for this.
            self.found.left_out.devices += 1;
        } else if !dir.cut && !matches!(self.below(dir, &path)?, lower::Found::Nothing) {
            self.found.add(path, What::Gone);
        }
        Ok(())
    }

    /// What a directory that shows nothing of those below it had in them.
    fn hidden(&mut self, dir: &Dir, names: &[(Vec<u8>, FileType)]) -> Result<()> {
        let Some(lowers) = &self.lowers else { return Ok(()) };
        let ours: HashSet<&[u8]> = names.iter().map(|(name, _)| &name[..]).collect();
        for name in lowers.names(&dir.layers, &dir.path)? {
            if !ours.contains(&name[..]) {
                self.found.add(join(&dir.path, &name), What::GoneWithParent);
            }
        }
        Ok(())
    }

    fn below(&self, dir: &Dir, path: &[u8]) -> Result<lower::Found> {
        match &self.lowers {
            Some(lowers) if !dir.layers.is_empty() => lowers.find(&dir.layers, path),
            _ => Ok(lower::Found::Nothing),
        }
    }

    /// Refuses a file whose content is in a layer below.
    fn check_file(&self, fd: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        if self.lowers.is_none() || at::file_type(stat) != FileType::RegularFile {
            return Ok(());
        }
        let metacopy = at::has_xattr(fd.as_fd(), name, self.marks.metacopy);
        match metacopy.map_err(self.failed("reading", path))? {
            true => Err(unrepresentable(
                path,
                "overlay copied only its metadata (metacopy); mount with metacopy=off",
            )),
            false => Ok(()),
        }
    }

    /// The time of the root changes with every snapshot, so it alone is no change.
    fn root_differs(&self) -> Result<bool> {
        let Some(lowers) = &self.lowers else { return Ok(true) };
        let describe = |fd: &OwnedFd| -> rustix::io::Result<_> {
            Ok((rustix::fs::fstat(fd)?, at::layer_xattrs(fd.as_fd(), b".")?))
        };
        let below = lowers.open_at(0, b"", at::DIRECTORY)?;
        let old = describe(&below).map_err(self.failed("reading what is below", b""))?;
        let new = describe(&self.root).map_err(self.failed("reading", b""))?;
        Ok(!same_description(&old.0, &new.0) || old.1 != new.1)
    }

    fn failed(&self, action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
        super::failed(action, &self.path, path)
    }
}

fn unrepresentable(path: &[u8], reason: &str) -> Error {
    Error::Unrepresentable {
        path: super::shown(path),
        reason: reason.to_owned(),
    }
}
