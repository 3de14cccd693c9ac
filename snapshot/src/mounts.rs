//! What the mounts of a snapshot say about its directories.

use std::ffi::CStr;
use std::path::PathBuf;

use longshore_linux::Mount;

/// The lower directories of an overlay mount, the topmost first, by their own paths: what is a symbolic link (a short name for one of many) is followed.
pub(crate) fn lower_dirs(mount: &Mount) -> Vec<PathBuf> {
    let mut dirs = mount.lower_dirs();
    for dir in &mut dirs {
        if dir.is_symlink()
            && let Ok(real) = dir.canonicalize()
        {
            *dir = real;
        }
    }
    dirs
}

/// Names of the attributes in which an overlay keeps its marks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// On a directory that hides those below.
    pub(crate) opaque: &'static CStr,
    /// On a directory that was renamed without being copied.
    pub(crate) redirect: &'static CStr,
    /// On a file whose content is below.
    pub(crate) metacopy: &'static CStr,
}

const TRUSTED: Marks = Marks {
    opaque: c"trusted.overlay.opaque",
    redirect: c"trusted.overlay.redirect",
    metacopy: c"trusted.overlay.metacopy",
};

const USER: Marks = Marks {
    opaque: c"user.overlay.opaque",
    redirect: c"user.overlay.redirect",
    metacopy: c"user.overlay.metacopy",
};

impl Marks {
    /// Those of that mount. The others are ordinary attributes in it, which anybody may set.
    pub(crate) fn of(mount: &Mount) -> &'static Self {
        match mount.options.iter().any(|option| option == "userxattr") {
            true => &USER,
            false => &TRUSTED,
        }
    }
}

/// An overlay mount with these options, for tests.
#[cfg(test)]
pub(crate) fn overlay(options: &[&str]) -> Mount {
    Mount {
        fs_type: "overlay".into(),
        source: "overlay".into(),
        target: None,
        options: options.iter().map(ToString::to_string).collect(),
    }
}
