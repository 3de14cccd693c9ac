use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use longshore_linux::Mount;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::merged::{Failure, Merged, Overlay, proc_path};
use super::{RootFiles, refuse, too_long};
use crate::{Error, Result};

/// The files behind a snapshot's mounts, looked up without mounting anything: in the source of a bind mount, or
/// through the upper and lower directories of an overlay with its whiteouts and opaque directories.
///
/// Limits: directories that were renamed under `redirect_dir=on`, and files that are `metacopy` stubs, are not
/// followed into lower layers. Reading files needs `/proc`.
#[derive(Debug)]
pub struct MountsView {
    merged: Merged,
}

impl MountsView {
    /// Opens the directories of a snapshot's mounts. The last mount of the root hides those before it, as it will
    /// when they are performed.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for another type than `bind` and `overlay`, and for mounts
    /// below the root; what opening the directories fails with.
    pub fn new(mounts: &[Mount]) -> Result<Self> {
        if let Some(mount) = mounts.iter().find(|mount| mount.target.is_some()) {
            return Err(unsupported(
                mount,
                "it is mounted below the root; look files up in the mounted tree",
            ));
        }
        let Some(mount) = mounts.last() else {
            return Err(unsupported(&Mount::default(), "there is no mount at all"));
        };
        let is_bind = mount.fs_type == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind");
        match mount.fs_type.as_str() {
            _ if is_bind => Self::directory(&mount.source),
            "overlay" => Self::overlay(mount),
            _ => Err(unsupported(
                mount,
                "only bind mounts and overlays are directories of the host; look files up in the mounted tree",
            )),
        }
    }

    /// Opens a directory that is a whole root filesystem.
    ///
    /// # Errors
    /// What opening it fails with.
    pub fn directory(path: impl AsRef<Path>) -> Result<Self> {
        let layers = vec![open_directory(path.as_ref())?];
        Ok(Self {
            merged: Merged::new(layers, None),
        })
    }

    fn overlay(mount: &Mount) -> Result<Self> {
        let paths = overlay_directories(mount);
        if paths.is_empty() {
            return Err(unsupported(mount, "it has neither upperdir nor lowerdir"));
        }
        let layers = paths.iter().map(|path| open_directory(path)).collect::<Result<_>>()?;
        let marks = match mount.options.iter().any(|option| option == "userxattr") {
            true => Overlay::User,
            false => Overlay::Trusted,
        };
        Ok(Self {
            merged: Merged::new(layers, Some(marks)),
        })
    }
}

impl RootFiles for MountsView {
    fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.merged.find(path) {
            Ok(Some(file)) => read_regular(file, path, limit).map(Some),
            Ok(None) => Ok(None),
            Err(Failure::Loop) => Err(refuse(path, "its symbolic links are too many, or lead in a circle")),
            Err(Failure::System(errno)) => Err(Error::io("looking up", path)(errno.into())),
        }
    }
}

/// Reads what an `O_PATH` descriptor names, once it is known to be a file: opening a device or a pipe has effects, or
/// waits for ever.
fn read_regular(entry: OwnedFd, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |errno: rustix::io::Errno| Error::io("reading", path)(errno.into());
    let stat = fstat(&entry).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refuse(path, "it is not a regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, proc_path(entry.as_fd()), flags, Mode::empty()).map_err(failed)?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(limit + 1).read_to_end(&mut bytes);
    read.map_err(Error::io("reading", path))?;
    if bytes.len() as u64 > limit {
        return Err(too_long(path, limit));
    }
    Ok(bytes)
}

/// Upper directory first, then the lower ones in the order of the option.
fn overlay_directories(mount: &Mount) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = mount.value_of("upperdir").map(PathBuf::from).into_iter().collect();
    directories.extend(mount.lower_dirs());
    directories
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| Error::io("opening", path)(errno.into()))
}

fn unsupported(mount: &Mount, reason: &'static str) -> Error {
    Error::UnsupportedMount {
        fs_type: mount.fs_type.clone(),
        reason,
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
