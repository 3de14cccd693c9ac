use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use oci_spec::image::{Digest, DigestAlgorithm, ImageIndex};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use serde::Deserialize;

use super::index_of;
use crate::manifest::MAX_MANIFEST_SIZE;
use crate::{Error, Result};

/// `oci-layout` is a few bytes.
const MAX_LAYOUT_SIZE: u64 = 4096;

/// The files of a layout, opened inside its directory only.
#[derive(Debug)]
pub(super) struct LayoutFiles {
    directory: PathBuf,
    fd: OwnedFd,
}

#[derive(Deserialize)]
struct LayoutFile {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

impl LayoutFiles {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::open(directory, flags, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => Error::NotFound {
                what: "an image layout".into(),
                registry: directory.display().to_string(),
            },
            _ => io("opening", directory, errno),
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            fd,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn name(&self) -> String {
        self.directory.display().to_string()
    }

    pub(super) fn check_version(&self) -> Result<()> {
        let bytes = self.small("oci-layout", MAX_LAYOUT_SIZE)?;
        let wrong = |reason: String| Error::Protocol {
            registry: self.name(),
            what: "oci-layout".into(),
            reason,
        };
        let layout: LayoutFile = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        match layout.version.split('.').next() {
            Some("1") => Ok(()),
            _ => Err(wrong(format!(
                "version {} of the layout is not known here",
                layout.version
            ))),
        }
    }

    pub(super) fn index(&self) -> Result<ImageIndex> {
        index_of(&self.small("index.json", MAX_MANIFEST_SIZE)?, &self.name())
    }

    /// A blob, by a digest whose text is safe as a path.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Blob> {
        if matches!(digest.algorithm(), DigestAlgorithm::Other(_)) {
            return Err(Error::Protocol {
                registry: self.name(),
                what: format!("the digest {digest}"),
                reason: "its algorithm is not known here (sha256, sha384 and sha512 are)".into(),
            });
        }
        let path = format!("blobs/{}/{}", digest.algorithm(), digest.digest());
        Ok(Blob {
            file: self.file(&path)?,
            path: self.directory.join(path),
        })
    }

    fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = self.file(path)?.take(limit + 1);
        file.read_to_end(&mut bytes)
            .map_err(|source| io("reading", &self.directory.join(path), source))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge {
                what: path.to_owned(),
                size: bytes.len() as u64,
                limit,
            });
        }
        Ok(bytes)
    }

    /// A regular file of the layout: reached by no link, and never one that blocks.
    fn file(&self, path: &str) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let whole = self.directory.join(path);
        let fd = openat2(&self.fd, path, flags, Mode::empty(), inside).map_err(|errno| match errno {
            rustix::io::Errno::NOENT => Error::NotFound {
                what: path.to_owned(),
                registry: self.name(),
            },
            rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => Error::Protocol {
                registry: self.name(),
                what: path.to_owned(),
                reason: "it is a link, which a layout must not have".into(),
            },
            _ => io("opening", &whole, errno),
        })?;
        let stat = fstat(&fd).map_err(|errno| io("looking at", &whole, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Protocol {
                registry: self.name(),
                what: path.to_owned(),
                reason: "it is not a regular file".into(),
            });
        }
        Ok(fd.into())
    }
}

/// A blob's file.
#[derive(Debug)]
pub(super) struct Blob {
    file: File,
    path: PathBuf,
}

impl Blob {
    /// Up to `length` bytes from `offset` on; none at the end.
    pub(super) fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let count = self
            .file
            .read_at(&mut bytes, offset)
            .map_err(|source| io("reading", &self.path, source))?;
        bytes.truncate(count);
        Ok(bytes)
    }
}

/// What the system refused.
pub(super) fn io(action: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Error {
    Error::Layout {
        action,
        path: path.to_owned(),
        source: source.into(),
    }
}
