use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::apply::path::join;
use crate::at;
use crate::{Error, Result};

/// The index of a lower directory, 0 being the topmost.
pub(crate) type Layer = u16;

/// The lower directories of an overlay mount, looked into but never written.
///
/// One descriptor serves them all: that of their common ancestor. Everything below it is looked up with openat2(2) and no symbolic link
/// followed, so what a lower layer holds can't lead out of it.
#[derive(Debug)]
pub(crate) struct Lowers {
    base: OwnedFd,
    base_path: PathBuf,
    /// Each one's path from the base.
    roots: Vec<Vec<u8>>,
    opaque: &'static CStr,
}

/// What the merged lower directories show under a name.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing, or a whiteout.
    Nothing,
    /// A directory, merged from these.
    Directory(Vec<Layer>),
    /// Anything else, in that one.
    Other(Layer, Stat),
}

impl Lowers {
    pub(crate) fn open(dirs: &[PathBuf], opaque: &'static CStr) -> Result<Self> {
        let base_path = common_ancestor(dirs);
        let base = rustix::fs::open(&base_path, at::DIRECTORY, Mode::empty())
            .map_err(at::failed("opening the lower directories' folder", &base_path))?;
        let roots = dirs
            .iter()
            .map(|dir| {
                let rest = dir.strip_prefix(&base_path).expect("the ancestor is a prefix");
                let rest = rest.as_os_str().as_encoded_bytes().to_vec();
                if rest.is_empty() { b".".to_vec() } else { rest }
            })
            .collect();
        Ok(Self {
            base,
            base_path,
            roots,
            opaque,
        })
    }

    /// All of them: what the root directory is merged from.
    pub(crate) fn all(&self) -> Vec<Layer> {
        (0..self.roots.len() as Layer).collect()
    }

    /// Looks for `path`, whose directory is merged from `layers`.
    pub(crate) fn find(&self, layers: &[Layer], path: &[u8]) -> Result<Found> {
        let mut dirs = Vec::new();
        for (position, layer) in layers.iter().enumerate() {
            match at::open_below(&self.base, &self.path(*layer, path), at::DIRECTORY) {
                Ok(dir) => {
                    dirs.push(*layer);
                    if position + 1 < layers.len()
                        && self.is_opaque(&dir).map_err(self.failed("reading", *layer, path))?
                    {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) if !dirs.is_empty() => break,
                Err(Errno::NOTDIR | Errno::LOOP) => return self.other(*layer, path),
                Err(errno) => return Err(self.failed("opening", *layer, path)(errno)),
            }
        }
        Ok(if dirs.is_empty() {
            Found::Nothing
        } else {
            Found::Directory(dirs)
        })
    }

    fn other(&self, layer: Layer, path: &[u8]) -> Result<Found> {
        let stat = self.stat(layer, path)?;
        Ok(if at::is_whiteout(&stat) {
            Found::Nothing
        } else {
            Found::Other(layer, stat)
        })
    }

    /// Stats `path`, whose directory is known to be a real one in `layer`.
    pub(crate) fn stat(&self, layer: Layer, path: &[u8]) -> Result<Stat> {
        let (dir, name) = self.parent(layer, path)?;
        at::stat(&dir, &name).map_err(self.failed("reading", layer, path))
    }

    /// The directory of `path` in `layer`, opened, and its last component.
    pub(crate) fn parent(&self, layer: Layer, path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let (dir, name) = super::path::split(path);
        let fd = at::open_below(&self.base, &self.path(layer, dir), at::DIRECTORY).map_err(self.failed(
            "opening the directory of",
            layer,
            path,
        ))?;
        // The root itself has no last component.
        let name = if name.is_empty() { b"." } else { name };
        Ok((fd, name.to_vec()))
    }

    /// Opens `path` in `layer`.
    pub(crate) fn open_at(&self, layer: Layer, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        at::open_below(&self.base, &self.path(layer, path), flags).map_err(self.failed("opening", layer, path))
    }

    /// The names that a directory shows which is merged from `layers`, sorted.
    pub(crate) fn names(&self, layers: &[Layer], path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut seen = BTreeMap::new();
        for layer in layers {
            let dir = self.open_at(*layer, path, at::DIRECTORY)?;
            for (name, kind) in at::list(&dir).map_err(self.failed("reading", *layer, path))? {
                let may_be_whiteout = matches!(kind, FileType::CharacterDevice | FileType::Unknown);
                let whiteout = may_be_whiteout && at::stat(&dir, &name).is_ok_and(|stat| at::is_whiteout(&stat));
                seen.entry(name).or_insert(whiteout);
            }
        }
        Ok(seen
            .into_iter()
            .filter(|(_, whiteout)| !whiteout)
            .map(|(name, _)| name)
            .collect())
    }

    /// Whether a directory hides what the layers below it have.
    pub(crate) fn is_opaque(&self, dir: &OwnedFd) -> rustix::io::Result<bool> {
        Ok(at::small_xattr(dir, self.opaque)?.as_deref() == Some(b"y"))
    }

    fn path(&self, layer: Layer, path: &[u8]) -> Vec<u8> {
        let root = &self.roots[usize::from(layer)];
        if path.is_empty() {
            root.clone()
        } else {
            join(root, path)
        }
    }

    fn failed(&self, action: &'static str, layer: Layer, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
        at::failed(action, self.base_path.join(super::os(&self.path(layer, path))))
    }
}

fn common_ancestor(dirs: &[PathBuf]) -> PathBuf {
    let mut ancestor: &Path = dirs.first().map_or(Path::new("/"), PathBuf::as_path);
    for dir in dirs {
        while !dir.starts_with(ancestor) {
            ancestor = ancestor.parent().unwrap_or(Path::new("/"));
        }
    }
    ancestor.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors() {
        let of = |dirs: &[&str]| common_ancestor(&dirs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["/a/s/1/fs", "/a/s/12/fs"]), Path::new("/a/s"));
        assert_eq!(of(&["/a/s/1/fs"]), Path::new("/a/s/1/fs"));
        assert_eq!(of(&["/a", "/b"]), Path::new("/"));
    }
}
