use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use longshore_linux::Mount;
use rustix::fs::{AtFlags, FileType, Mode, Stat};

use crate::apply::Ownership;
use crate::copy::copy_node;
use crate::local::{Layout, Local, open, snapshotter};
use crate::store::Store;
use crate::{Kind, Result, at};

/// The snapshotter that needs nothing of the kernel: each snapshot is a whole copy of its parent.
///
/// Where the filesystem can share blocks between files (btrfs, xfs), it does. Elsewhere making a snapshot takes the time and the space of
/// a copy; a view takes neither. It is the one to fall back to.
///
/// Must be used within a tokio runtime.
#[derive(Debug)]
pub struct NativeSnapshotter(Local<Native>);

impl NativeSnapshotter {
    /// Opens the snapshotter at `root`, making the directory, for this process alone.
    ///
    /// # Errors
    /// [`InUse`](crate::ErrorKind::InUse), [`Corrupt`](crate::ErrorKind::Corrupt), and what the system answers.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        open(move || Ok(Self(Local::new(Store::open(&root)?, Native)))).await
    }

    /// Where it keeps its files.
    pub fn root(&self) -> &Path {
        self.0.root()
    }
}

snapshotter!(NativeSnapshotter, "native");

#[derive(Debug)]
struct Native;

impl Layout for Native {
    fn make(&self, store: &Store, id: u64, kind: Kind, parents: &[u64]) -> Result<()> {
        if kind == Kind::View && !parents.is_empty() {
            return Ok(());
        }
        let Some(parent) = parents.first() else {
            return crate::local::make_root(store, id, None);
        };
        let path = store.path(id, "fs");
        rustix::fs::mkdirat(store.dirs(), id.to_string(), Mode::RWXU)
            .map_err(at::failed("creating the directory of", &path))?;
        let source = at::open_below(store.dirs(), format!("{parent}/fs").as_bytes(), at::DIRECTORY)
            .map_err(at::failed("opening the parent", store.path(*parent, "fs")))?;
        let target = at::open_below(store.dirs(), id.to_string().as_bytes(), at::DIRECTORY)
            .map_err(at::failed("opening the directory of", &path))?;
        copy_tree(source, &target, b"fs").map_err(at::failed("copying its parent to", path))
    }

    fn mounts(&self, store: &Store, id: u64, kind: Kind, parents: &[u64]) -> Result<Vec<Mount>> {
        let mount = match (kind, parents.first()) {
            (Kind::View, Some(parent)) => Mount::bind(store.path(*parent, "fs")).option("ro"),
            (Kind::View, None) => Mount::bind(store.path(id, "fs")).option("ro"),
            _ => Mount::bind(store.path(id, "fs")).option("rw"),
        };
        Ok(vec![mount])
    }
}

/// A directory being copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    path: Vec<u8>,
    rest: Vec<(Vec<u8>, FileType)>,
}

/// Copies a tree with everything: owners, modes, times, attributes, hard links, holes, devices.
fn copy_tree(source: OwnedFd, target: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    // Who is not root owns all that it copies and can make no devices; then nothing of another owner can be there.
    let ownership = match rustix::process::geteuid().is_root() {
        true => Ownership::Keep,
        false => Ownership::Caller,
    };
    let top = Level::begin(source, target, name, name.to_vec())?;
    let base = target;
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut open = vec![top];
    while let Some(level) = open.last_mut() {
        let Some((name, _)) = level.rest.pop() else {
            if let Some(done) = open.pop() {
                done.finish(ownership)?;
            }
            continue;
        };
        let stat = at::stat(&level.from, &name)?;
        let mut path = level.path.clone();
        path.push(b'/');
        path.extend_from_slice(&name);
        if at::file_type(&stat) == FileType::Directory {
            let from = at::open_dir(&level.from, &name)?;
            let next = Level::begin(from, &level.to, &name, path)?;
            open.push(next);
            continue;
        }
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = links.get(&inode)
        {
            rustix::fs::linkat(base, first, &level.to, &name, AtFlags::empty())?;
            continue;
        }
        copy_node(level.from.as_fd(), &name, &stat, level.to.as_fd(), &name, ownership)?;
        if stat.st_nlink > 1 {
            links.insert(inode, path);
        }
    }
    Ok(())
}

impl Level {
    fn begin(from: OwnedFd, parent: &OwnedFd, name: &[u8], path: Vec<u8>) -> rustix::io::Result<Self> {
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        Ok(Self {
            to: at::open_dir(parent, name)?,
            stat: rustix::fs::fstat(&from)?,
            rest: at::list(&from)?,
            path,
            from,
        })
    }

    fn finish(self, ownership: Ownership) -> rustix::io::Result<()> {
        if ownership == Ownership::Keep {
            let (uid, gid) = at::owner(&self.stat);
            rustix::fs::fchown(&self.to, uid, gid)?;
        }
        let xattrs = at::xattrs(self.from.as_fd(), b".")?;
        at::set_xattrs_of(&self.to, &xattrs)?;
        rustix::fs::fchmod(&self.to, Mode::from_raw_mode(self.stat.st_mode))?;
        rustix::fs::futimens(&self.to, &at::mtime(&self.stat))
    }
}
