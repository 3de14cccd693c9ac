use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;

use crate::apply::path::join;
use crate::diff::content::{open_file, same_content};
use crate::diff::found::{Found, What};
use crate::diff::{ChangeKind, is_reserved, same_description};
use crate::{Error, Result, at};

type Inode = (u64, u64);

/// Compares two whole trees. Files of the same size, time, owner, mode and attributes are compared by their content.
pub(super) struct Comparison {
    old: Side,
    new: Side,
    found: Found,
}

/// Which sides have a directory.
#[derive(Clone, Copy)]
enum On {
    Both,
    NewOnly,
}

struct Side {
    root: OwnedFd,
    path: PathBuf,
    /// Files with several names, and those that both sides may have.
    inodes: HashMap<Vec<u8>, Inode>,
    names: HashMap<Inode, Vec<Vec<u8>>>,
}

impl Comparison {
    pub(super) fn open(old: &Path, new: &Path) -> Result<Self> {
        Ok(Self {
            old: Side::open(old)?,
            new: Side::open(new)?,
            found: Found::default(),
        })
    }

    pub(super) fn look(mut self) -> Result<Found> {
        if self.root_differs()? {
            self.found.add(Vec::new(), What::Put(ChangeKind::Changed));
        }
        let mut todo = vec![(Vec::new(), On::Both)];
        while let Some((path, on)) = todo.pop() {
            self.look_into(&path, on, &mut todo)?;
        }
        self.follow_links();
        Ok(self.found)
    }

    fn look_into(&mut self, path: &[u8], on: On, todo: &mut Vec<(Vec<u8>, On)>) -> Result<()> {
        let Some(new_dir) = self.new.open_dir(path)? else {
            return Ok(());
        };
        let new_names = names(&new_dir).map_err(self.new.failed("reading", path))?;
        let old_dir = match on {
            On::Both => self.old.open_dir(path)?,
            On::NewOnly => None,
        };
        let old_names = match &old_dir {
            Some(dir) => names(dir).map_err(self.old.failed("reading", path))?,
            None => BTreeSet::new(),
        };
        for name in old_names.difference(&new_names) {
            self.found.add_with_parents(join(path, name), What::Gone);
        }
        for name in new_names {
            let Some(stat) = stat_of(&new_dir, &name).map_err(self.new.failed("reading", path))? else {
                continue;
            };
            let below = match &old_dir {
                Some(dir) if old_names.contains(&name) => {
                    stat_of(dir, &name).map_err(self.old.failed("reading", path))?
                }
                _ => None,
            };
            self.look_at((path, &name), (&new_dir, stat), old_dir.as_ref().zip(below), todo)?;
        }
        Ok(())
    }

    fn look_at(
        &mut self,
        (dir, name): (&[u8], &[u8]),
        new: (&OwnedFd, Stat),
        old: Option<(&OwnedFd, Stat)>,
        todo: &mut Vec<(Vec<u8>, On)>,
    ) -> Result<()> {
        let path = join(dir, name);
        if self.is_left_out(name, &new.1) {
            if old.is_some() {
                self.found.add_with_parents(path, What::Gone);
            }
            return Ok(());
        }
        self.new.note(&path, &new.1);
        let kind = match &old {
            None => Some(ChangeKind::Added),
            Some(old) => {
                self.old.note(&path, &old.1);
                let same = self.same(name, old, (new.0, &new.1));
                let same = same.map_err(self.new.failed("comparing", &path))?;
                (!same).then_some(ChangeKind::Changed)
            }
        };
        if let Some(kind) = kind {
            self.found.add_with_parents(path.clone(), What::Put(kind));
        }
        if at::file_type(&new.1) == FileType::Directory {
            let on = match old {
                Some((_, stat)) if at::file_type(&stat) == FileType::Directory => On::Both,
                _ => On::NewOnly,
            };
            todo.push((path, on));
        }
        Ok(())
    }

    /// What no layer can hold.
    fn is_left_out(&mut self, name: &[u8], stat: &Stat) -> bool {
        let left_out = &mut self.found.left_out;
        let counter = match at::file_type(stat) {
            _ if is_reserved(name) => &mut left_out.names,
            FileType::Socket => &mut left_out.sockets,
            _ if at::is_whiteout(stat) => &mut left_out.devices,
            _ => return false,
        };
        *counter += 1;
        true
    }

    fn same(&self, name: &[u8], old: &(&OwnedFd, Stat), new: (&OwnedFd, &Stat)) -> rustix::io::Result<bool> {
        let (old_dir, old_stat) = old;
        let (new_dir, new_stat) = new;
        if !same_description(old_stat, new_stat) {
            return Ok(false);
        }
        if (old_stat.st_dev, old_stat.st_ino) == (new_stat.st_dev, new_stat.st_ino) {
            return Ok(true);
        }
        let times = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if times(old_stat) != times(new_stat)
            || at::layer_xattrs(old_dir.as_fd(), name)? != at::layer_xattrs(new_dir.as_fd(), name)?
        {
            return Ok(false);
        }
        match at::file_type(new_stat) {
            FileType::RegularFile if old_stat.st_size != new_stat.st_size => Ok(false),
            FileType::RegularFile => {
                let (Some(old), Some(new)) = (open_file(old_dir.as_fd(), name)?, open_file(new_dir.as_fd(), name)?)
                else {
                    return Ok(false);
                };
                same_content(old.0.as_fd(), new.0.as_fd())
            }
            FileType::Symlink => {
                let target = |dir: &OwnedFd| rustix::fs::readlinkat(dir, name, Vec::new());
                Ok(target(old_dir)? == target(new_dir)?)
            }
            FileType::CharacterDevice | FileType::BlockDevice => Ok(old_stat.st_rdev == new_stat.st_rdev),
            _ => Ok(true),
        }
    }

    /// A file with several names is in a layer with all of them or with none: unpackers that do not see the layers below could not link to it
    /// otherwise. Names that were one file before and are two now, or the other way round, are changes as well.
    fn follow_links(&mut self) {
        let mut changed = Vec::new();
        for names in self.old.names.values().filter(|names| names.len() > 1) {
            let now: HashSet<_> = names.iter().map(|name| self.new.inodes.get(name)).collect();
            if now.len() > 1 {
                changed.extend(names.iter().filter(|name| self.new.inodes.contains_key(*name)).cloned());
            }
        }
        for path in changed {
            self.change(path);
        }
        let mut changed = Vec::new();
        for names in self.new.names.values().filter(|names| names.len() > 1) {
            let before: HashSet<_> = names.iter().map(|name| self.old.inodes.get(name)).collect();
            if before.len() > 1 || before.contains(&None) || names.iter().any(|name| self.found.contains(name)) {
                changed.extend(names.iter().cloned());
            }
        }
        for path in changed {
            self.change(path);
        }
    }

    fn change(&mut self, path: Vec<u8>) {
        if !self.found.contains(&path) {
            self.found.add_with_parents(path, What::Put(ChangeKind::Changed));
        }
    }

    fn root_differs(&self) -> Result<bool> {
        let describe = |side: &Side| -> Result<_> {
            let stat = rustix::fs::fstat(&side.root).map_err(side.failed("reading", b""))?;
            let xattrs = at::layer_xattrs(side.root.as_fd(), b".").map_err(side.failed("reading", b""))?;
            Ok((stat, xattrs))
        };
        let (old, new) = (describe(&self.old)?, describe(&self.new)?);
        Ok(!same_description(&old.0, &new.0) || old.1 != new.1)
    }
}

impl Side {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            root: rustix::fs::open(path, at::DIRECTORY, Mode::empty()).map_err(at::failed("opening", path))?,
            path: path.to_owned(),
            inodes: HashMap::new(),
            names: HashMap::new(),
        })
    }

    fn open_dir(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        match at::open_below(&self.root, name, at::DIRECTORY) {
            // It went away while we looked.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            answer => answer.map(Some).map_err(self.failed("opening", path)),
        }
    }

    fn note(&mut self, path: &[u8], stat: &Stat) {
        if at::file_type(stat) != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            self.inodes.insert(path.to_vec(), inode);
            self.names.entry(inode).or_default().push(path.to_vec());
        }
    }

    fn failed(&self, action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
        super::failed(action, &self.path, path)
    }
}

fn names(dir: &OwnedFd) -> rustix::io::Result<BTreeSet<Vec<u8>>> {
    Ok(at::list(dir)?.into_iter().map(|(name, _)| name).collect())
}

fn stat_of(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match at::stat(dir, name) {
        Err(Errno::NOENT) => Ok(None),
        answer => answer.map(Some),
    }
}
