use std::ffi::CStr;
use std::path::PathBuf;

use longshore_linux::Mount;

use crate::mounts::{Marks, lower_dirs};
use crate::{Error, Result};

/// Where a layer goes, read from the mounts of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The directory that is written.
    pub(super) dir: PathBuf,
    /// What is below it; `None` for a plain directory.
    pub(super) overlay: Option<Overlay>,
}

/// What an overlay mount says besides its upper directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    /// The topmost first.
    pub(super) lowers: Vec<PathBuf>,
    /// The attribute that marks a directory as hiding those below.
    pub(super) opaque: &'static CStr,
}

impl Target {
    pub(super) fn of(mounts: &[Mount]) -> Result<Self> {
        let [mount] = mounts else {
            return Err(unusable(format!(
                "there are {} of them, and one is needed",
                mounts.len()
            )));
        };
        if mount.is_read_only() {
            return Err(unusable(
                "they are read-only; prepare the snapshot instead of viewing it",
            ));
        }
        if mount.target.is_some() {
            return Err(unusable("the mount is not the root"));
        }
        match mount.fs_type.as_str() {
            "bind" => Ok(Self {
                dir: mount.source.clone(),
                overlay: None,
            }),
            "overlay" => Self::of_overlay(mount),
            other => Err(unusable(format!(
                "file system '{other}' has no directory to work on; bind and overlay mounts have"
            ))),
        }
    }

    fn of_overlay(mount: &Mount) -> Result<Self> {
        let dir = mount
            .value_of("upperdir")
            .ok_or_else(|| unusable("the overlay has no upperdir"))?;
        let lowers = lower_dirs(mount);
        if lowers.is_empty() || lowers.len() > usize::from(u16::MAX) {
            return Err(unusable(format!("the overlay has {} lower directories", lowers.len())));
        }
        Ok(Self {
            dir: PathBuf::from(dir),
            overlay: Some(Overlay {
                lowers,
                opaque: Marks::of(mount).opaque,
            }),
        })
    }
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::Mounts { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::overlay;

    #[test]
    fn overlay_options() {
        let target = Target::of(&[overlay(&[
            "lowerdir=/a:/b\\:c",
            "upperdir=/u",
            "workdir=/w",
            "userxattr",
        ])])
        .unwrap();
        assert_eq!(target.dir, PathBuf::from("/u"));
        let lower = target.overlay.unwrap();
        assert_eq!(lower.lowers, [PathBuf::from("/a"), PathBuf::from("/b:c")]);
        assert_eq!(lower.opaque, c"user.overlay.opaque");
    }

    #[test]
    fn what_can_not_be_written() {
        assert!(Target::of(&[]).is_err());
        assert!(Target::of(&[Mount::bind("/a").option("ro")]).is_err());
        assert!(Target::of(&[overlay(&["lowerdir=/a:/b"])]).is_err());
        assert!(
            Target::of(&[Mount {
                fs_type: "erofs".into(),
                ..Mount::default()
            }])
            .is_err()
        );
    }
}
