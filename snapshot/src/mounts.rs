//! What the mounts of a snapshot say about its directories.

use std::ffi::CStr;
use std::path::PathBuf;

use longshore_linux::Mount;

/// The lower directories of an overlay mount, the topmost first.
pub(crate) fn lower_dirs(mount: &Mount) -> Vec<PathBuf> {
    let mut lowers = Vec::new();
    for option in &mount.options {
        if let Some(dirs) = option.strip_prefix("lowerdir=") {
            lowers.extend(split_dirs(dirs));
        } else if let Some(one) = option.strip_prefix("lowerdir+=") {
            lowers.push(PathBuf::from(one));
        }
    }
    lowers
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

/// Directories between colons; a backslash takes the next character as it is.
fn split_dirs(list: &str) -> Vec<PathBuf> {
    let mut dirs = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => dirs.push(String::new()),
            '\\' => dirs.last_mut().expect("there is always one").extend(chars.next()),
            c => dirs.last_mut().expect("there is always one").push(c),
        }
    }
    dirs.into_iter().map(PathBuf::from).collect()
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
