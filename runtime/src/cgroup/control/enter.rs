use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::group::{Group, failed};
use super::super::host::Kind;
use super::{Cgroup, Member};
use crate::{Error, Result};

/// How a child enters the groups.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The v2 group's directory, for `CLONE_INTO_CGROUP` (clone3(2)). Without that call: write `0` into its `cgroup.procs`.
    pub unified: Option<OwnedFd>,
    /// The `tasks` files of v1: the child, while it has one thread, writes `0` into each.
    pub tasks: Vec<OwnedFd>,
}

/// A group inside the container's, for one more process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubGroup {
    /// The v1 controllers in whose hierarchies it is; none is every hierarchy.
    pub controllers: Vec<String>,
    /// Its path, from the container's group.
    pub path: PathBuf,
}

impl Cgroup {
    /// Descriptors by which a child enters; they may be used for any number of children.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if a group is gone.
    pub fn entry(&self) -> Result<Entry> {
        self.entry_below(&[])
    }

    /// The same, into groups inside the container's. Those must be there.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a path that would leave the container's group, and for a controller that the container has no
    /// group of; [`Io`](crate::ErrorKind::Io) for a group that is not there.
    pub fn entry_below(&self, below: &[SubGroup]) -> Result<Entry> {
        self.check(below)?;
        let mut entry = Entry {
            unified: None,
            tasks: Vec::new(),
        };
        for member in &self.members {
            let path = below
                .iter()
                .find(|sub| sub.is_in(&member.name.tree.kind))
                .map(SubGroup::plain)
                .transpose()?;
            let found = match path.filter(|path| !path.as_os_str().is_empty()) {
                None => None,
                Some(path) => Some(member.inside(&path)?),
            };
            let group = found.as_ref().unwrap_or_else(|| member.group());
            if member.is_v2() {
                let fd = group.dir().and_then(|dir| rustix::io::fcntl_dupfd_cloexec(dir, 0));
                entry.unified = Some(fd.map_err(|errno| failed(&group.path, "keep the group open", errno))?);
            } else {
                let fd = group.open("tasks", OFlags::WRONLY);
                entry
                    .tasks
                    .push(fd.map_err(|e| failed(&group.path.join("tasks"), "open", e))?);
            }
        }
        Ok(entry)
    }

    fn check(&self, below: &[SubGroup]) -> Result<()> {
        let refuse = |reason: String| Error::InvalidSpec {
            field: "cgroup".into(),
            reason,
        };
        let mut named = BTreeSet::new();
        for sub in below {
            for controller in &sub.controllers {
                if !self
                    .members
                    .iter()
                    .any(|member| member.name.tree.kind.is_of(controller))
                {
                    return Err(refuse(format!("unknown controller {controller}")));
                }
                if !named.insert(controller) {
                    return Err(refuse(format!("controller {controller} is given more than once")));
                }
            }
            sub.plain()?;
        }
        Ok(())
    }
}

impl Member {
    fn inside(&self, path: &Path) -> Result<Group> {
        self.group().find(path)?.ok_or_else(|| {
            let action = "find the group, for adding pid of the new process to cgroups; make it first";
            failed(&self.group().path.join(path), action, Errno::NOENT)
        })
    }
}

impl Kind {
    fn is_of(&self, controller: &str) -> bool {
        let Self::V1 { controllers, name } = self else {
            return false;
        };
        let named = controller.strip_prefix("name=").is_some() && name.as_deref() == controller.strip_prefix("name=");
        named || controllers.contains(controller)
    }
}

impl SubGroup {
    fn is_in(&self, kind: &Kind) -> bool {
        self.controllers.is_empty() || self.controllers.iter().any(|controller| kind.is_of(controller))
    }

    /// The path without a root and dots.
    fn plain(&self) -> Result<PathBuf> {
        let mut path = PathBuf::new();
        for component in self.path.components() {
            match component {
                Component::ParentDir => {
                    return Err(Error::InvalidSpec {
                        field: "cgroup".into(),
                        reason: format!("bad sub cgroup path: {}", self.path.display()),
                    });
                }
                Component::Normal(name) => path.push(name),
                _ => {}
            }
        }
        Ok(path)
    }
}
