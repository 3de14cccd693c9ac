use std::path::PathBuf;

use longshore_linux::Mount;

use crate::mounts::{Marks, lower_dirs};
use crate::{Error, Result};

/// The two sides of a comparison, read from mounts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sides {
    /// What an overlay's topmost directory has is what changed.
    Upper {
        dir: PathBuf,
        /// Below it, the topmost first; empty when nothing is.
        lowers: Vec<PathBuf>,
        marks: &'static Marks,
    },
    /// Two whole trees.
    Trees { old: PathBuf, new: PathBuf },
}

impl Sides {
    /// `parent` is empty for a snapshot on nothing; also for an overlay mount with an upper directory, which says itself what is below.
    pub(super) fn of(parent: &[Mount], mounts: &[Mount]) -> Result<Self> {
        let [mount] = mounts else {
            return Err(unusable(format!(
                "there are {} of them, and one is needed",
                mounts.len()
            )));
        };
        let below = match parent {
            [] => Vec::new(),
            [mount] => stack(mount)?,
            _ => return Err(unusable("its parent has several")),
        };
        let mut dirs = stack(mount)?;
        let says_itself = mount.value_of("upperdir").is_some() && parent.is_empty();
        if says_itself || (!dirs.is_empty() && dirs[1..] == below[..]) {
            let dir = dirs.remove(0);
            return Ok(Self::Upper {
                dir,
                lowers: dirs,
                marks: Marks::of(mount),
            });
        }
        match (&below[..], &dirs[..]) {
            ([old], [new]) => Ok(Self::Trees {
                old: old.clone(),
                new: new.clone(),
            }),
            _ => Err(unusable("it is not made from that parent, or not directly")),
        }
    }
}

/// The directories of a mount, the topmost first.
fn stack(mount: &Mount) -> Result<Vec<PathBuf>> {
    match mount.fs_type.as_str() {
        "bind" => Ok(vec![mount.source.clone()]),
        "overlay" => {
            let upper = mount.value_of("upperdir").map(PathBuf::from);
            Ok(upper.into_iter().chain(lower_dirs(mount)).collect())
        }
        other => Err(unusable(format!(
            "file system '{other}' has no directory to look at; bind and overlay mounts have"
        ))),
    }
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::Undiffable { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::overlay;

    #[test]
    fn which_directories() {
        let active = [overlay(&["upperdir=/u", "workdir=/w", "lowerdir=/b:/a"])];
        let parent = [overlay(&["ro", "lowerdir=/b:/a"])];
        let expected = Sides::Upper {
            dir: "/u".into(),
            lowers: vec!["/b".into(), "/a".into()],
            marks: Marks::of(&active[0]),
        };
        assert_eq!(Sides::of(&parent, &active).unwrap(), expected);
        assert_eq!(Sides::of(&[], &active).unwrap(), expected);
        assert!(Sides::of(&[Mount::bind("/a")], &active).is_err());
        // Committed ones.
        let top = Sides::of(&[Mount::bind("/a")], &parent).unwrap();
        assert!(matches!(top, Sides::Upper { dir, lowers, .. } if dir.ends_with("b") && lowers.len() == 1));
        let only = Sides::of(&[], &[Mount::bind("/a")]).unwrap();
        assert!(matches!(only, Sides::Upper { lowers, .. } if lowers.is_empty()));
        let copies = Sides::of(&[Mount::bind("/a")], &[Mount::bind("/b")]).unwrap();
        assert!(matches!(copies, Sides::Trees { .. }));
    }
}
