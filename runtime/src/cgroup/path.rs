use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::host::Hierarchy;
use crate::{ContainerId, Error, Result};

/// The group that all of ours are in, unless `cgroupsPath` says otherwise.
pub(super) const PARENT: &str = "longshore";

const FIELD: &str = "linux.cgroupsPath";

/// Where a container's groups are, for a state file: another process finds them again by [`Manager::open`](super::Manager::open).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// One place for each hierarchy; none if the container has no group.
    pub places: Vec<Place>,
}

/// A group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The group, relative to that.
    pub path: PathBuf,
}

/// What `linux.cgroupsPath` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: a group of our own choice.
    Ours(PathBuf),
    /// Beneath the root of every hierarchy.
    Absolute(PathBuf),
    /// Beneath the group of this process.
    Relative(PathBuf),
}

impl Wanted {
    pub(super) fn new(id: &ContainerId, asked: Option<&Path>) -> Result<Self> {
        let Some(asked) = asked.filter(|p| !p.as_os_str().is_empty()) else {
            return Ok(Self::Ours(Path::new(PARENT).join(id.as_str())));
        };
        let refuse = |reason: &str| {
            Err(Error::InvalidSpec {
                field: FIELD.into(),
                reason: format!("'{}' {reason}", asked.display()),
            })
        };
        let text = asked.as_os_str().as_encoded_bytes();
        if text.contains(&0) {
            return refuse("has a NUL byte");
        }
        if !asked.is_absolute() && text.iter().filter(|b| **b == b':').count() == 2 {
            return Err(Error::Unsupported {
                field: FIELD.into(),
                reason: format!(
                    "'{}' asks for systemd's cgroup driver; give a path instead",
                    asked.display()
                ),
            });
        }
        let mut path = PathBuf::new();
        for component in asked.components() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => return refuse("has '..', which could leave the hierarchy"),
                Component::Normal(name) if name.len() > 255 => return refuse("has a name of more than 255 bytes"),
                Component::Normal(name) => path.push(name),
            }
        }
        if path.as_os_str().is_empty() {
            return refuse("names no group but a hierarchy's root");
        }
        Ok(if asked.is_absolute() {
            Self::Absolute(path)
        } else {
            Self::Relative(path)
        })
    }

    /// The group's path relative to a hierarchy's mount point.
    pub(super) fn within(&self, hierarchy: &Hierarchy) -> Result<PathBuf> {
        let path = match self {
            Self::Ours(path) | Self::Absolute(path) => return Ok(path.clone()),
            Self::Relative(path) => path,
        };
        let own = hierarchy.own.as_deref().ok_or_else(|| Error::InvalidSpec {
            field: FIELD.into(),
            reason: format!(
                "'{}' is relative and this process' own group is not visible in {}; give an absolute path",
                path.display(),
                hierarchy.mount_point.display()
            ),
        })?;
        // On v2 a group that has processes (ours has this one) can't hand controllers to groups inside it.
        let base = if hierarchy.is_v2() {
            own.parent().unwrap_or(own)
        } else {
            own
        };
        Ok(base.join(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn wanted(path: &str) -> Result<Wanted> {
        Wanted::new(&ContainerId::new("x").expect("an id"), Some(Path::new(path)))
    }

    #[test]
    fn paths_are_taken_as_the_spec_says() {
        assert_eq!(wanted("").expect("none"), Wanted::Ours("longshore/x".into()));
        assert_eq!(wanted("/a//b/./c").expect("fine"), Wanted::Absolute("a/b/c".into()));
        assert_eq!(wanted("a/b").expect("fine"), Wanted::Relative("a/b".into()));
        assert_eq!(wanted("/a:b:c").expect("fine"), Wanted::Absolute("a:b:c".into()));
    }

    #[test]
    fn what_could_leave_the_hierarchy_is_refused() {
        for path in [
            "..",
            "/..",
            "../a",
            "/a/../../b",
            "a/..",
            "/",
            "//",
            "/.",
            "a\0b",
            &"x".repeat(256),
        ] {
            let error = wanted(path).expect_err(path);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().starts_with("linux.cgroupsPath: "), "{error}");
        }
        assert_eq!(
            wanted("system.slice:longshore:x").expect_err("systemd").kind(),
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn a_relative_path_starts_from_this_process() {
        use super::super::host::Host;
        let host = Host::parse(
            b"1 1 0:1 / /m rw - cgroup none rw,memory\n2 1 0:2 / /u rw - cgroup2 none rw",
            b"4:memory:/own/v1\n0::/own/v2",
            "",
        );
        let wanted = wanted("a/b").expect("fine");
        let places: Vec<_> = host
            .hierarchies
            .iter()
            .map(|h| wanted.within(h).expect("visible"))
            .collect();
        assert_eq!(places, [PathBuf::from("own/v1/a/b"), PathBuf::from("own/a/b")]);
    }
}
