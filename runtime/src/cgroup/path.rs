use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::host::Hierarchy;
use crate::{ContainerId, Error, Result};

/// What the names of our groups start and end with, unless `cgroupsPath` says otherwise: as a scope of systemd's is named, by which others find it. They
/// are beneath no group of ours: making, entering and removing one more group in each hierarchy would be a tenth of a container's life.
const PREFIX: &str = "longshore-";
const SUFFIX: &str = ".scope";
/// The longest name of a directory (limits.h).
const NAME_MAX: usize = 255;

const FIELD: &str = "linux.cgroupsPath";

/// Where a container's groups are, for a state file: another process finds them again by [`Manager::open`](super::Manager::open).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// One place for each hierarchy; none if the container has no group.
    pub places: Vec<Place>,
    /// The unit, if systemd made the groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// A unit of systemd: a scope or a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `longshore-demo.scope`.
    pub name: String,
    /// The slice that it is in: `system.slice`.
    pub slice: String,
    /// Whose systemd has it.
    pub instance: Instance,
    /// Its group, relative to a hierarchy's root.
    pub group: PathBuf,
}

/// Who makes groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// This program, in the cgroup filesystem.
    #[default]
    Cgroupfs,
    /// systemd, asked over its bus: `linux.cgroupsPath` is `slice:prefix:name`.
    Systemd(Instance),
}

/// Whose units a systemd manages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Instance {
    /// The machine's.
    System,
    /// The user's who runs this program.
    User,
}

/// A group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The group, relative to that.
    pub path: PathBuf,
    /// Its inode number, if it is known: a group that was made later at the same place has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
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
    /// What systemd has made, with a process in it.
    Unit(PathBuf),
}

/// What is made of a group that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is made anew: nobody else makes groups of this name.
    Ours,
    /// It is used if it is empty.
    Free,
    /// It is the container's, and so are the processes in it.
    Given,
}

impl Wanted {
    pub(super) fn new(id: &ContainerId, asked: Option<&Path>) -> Result<Self> {
        let Some(asked) = asked.filter(|p| !p.as_os_str().is_empty()) else {
            return Ok(Self::Ours(own_name(id)));
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
                    "'{}' asks for systemd's cgroup driver, which is not in use; choose it, or give a path instead",
                    asked.display()
                ),
            });
        }
        let mut path = PathBuf::new();
        for component in asked.components() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => return refuse("has '..', which could leave the hierarchy"),
                Component::Normal(name) if name.len() > NAME_MAX => return refuse("has a name of more than 255 bytes"),
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

    /// What is made of a group that is there already.
    pub(super) fn claim(&self) -> Claim {
        match self {
            Self::Ours(_) => Claim::Ours,
            Self::Absolute(_) | Self::Relative(_) => Claim::Free,
            Self::Unit(_) => Claim::Given,
        }
    }

    /// The group's path relative to a hierarchy's mount point.
    pub(super) fn within(&self, hierarchy: &Hierarchy) -> Result<PathBuf> {
        let path = match self {
            Self::Ours(path) | Self::Absolute(path) | Self::Unit(path) => return Ok(path.clone()),
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

fn own_name(id: &ContainerId) -> PathBuf {
    let name = format!("{PREFIX}{id}{SUFFIX}");
    // Nobody else has such a long name.
    PathBuf::from(if name.len() > NAME_MAX { id.to_string() } else { name })
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
        assert_eq!(wanted("").expect("none"), Wanted::Ours("longshore-x.scope".into()));
        assert_eq!(wanted("/a//b/./c").expect("fine"), Wanted::Absolute("a/b/c".into()));
        assert_eq!(wanted("a/b").expect("fine"), Wanted::Relative("a/b".into()));
        assert_eq!(wanted("/a:b:c").expect("fine"), Wanted::Absolute("a:b:c".into()));
    }

    #[test]
    fn the_longest_id_has_a_group_too() {
        for length in [239, 240, 255] {
            let id = ContainerId::new("x".repeat(length)).expect("an id");
            let Ok(Wanted::Ours(path)) = Wanted::new(&id, None) else {
                panic!("no path is ours to choose")
            };
            let name = path.to_str().expect("text");
            assert!(name.len() <= 255 && name.contains(id.as_str()), "{name}");
        }
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
