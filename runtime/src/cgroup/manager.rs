mod place;
mod prepare;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::control::Cgroup;
use super::group::{Group, failed};
use super::host::{Home, Host, Kind};
use super::limits::Limits;
use super::named::{Member, Name, Names, Tree};
use super::path::{Claim, Driver, Location, Place, Wanted};
use crate::{ContainerId, Error, Result};

/// Hierarchies of v1 in which every container has a group; `freezer` only where no v2 tree does its work.
const ALWAYS: [&str; 7] = ["devices", "pids", "memory", "cpu", "cpuacct", "blkio", "freezer"];

/// How often a path is walked again because somebody removed a group of it meanwhile.
const WALKS: usize = 100;

/// Makes and finds the groups of containers on this machine.
#[derive(Debug)]
pub struct Manager {
    host: Host,
    driver: Driver,
    /// The hierarchies, open, in the order of the host's list.
    trees: Vec<Arc<Tree>>,
}

impl Manager {
    /// Looks at the machine: reads `/proc` and opens every hierarchy.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if `/proc` can't be read. A hierarchy that can't be opened is left out.
    pub fn detect() -> Result<Self> {
        let mut host = Host::detect()?;
        let mut trees = Vec::new();
        host.hierarchies.retain(|h| {
            let kind = h.kind.clone();
            Group::root(&h.mount_point)
                .map(|root| trees.push(Arc::new(Tree { kind, root })))
                .is_ok()
        });
        let driver = Driver::default();
        Ok(Self { host, driver, trees })
    }

    /// The same machine as if it had no v2 tree.
    #[cfg(test)]
    fn without_v2(mut self) -> Self {
        self.trees.retain(|tree| tree.kind != Kind::V2);
        self.host.hierarchies.retain(|h| !h.is_v2());
        self
    }

    /// Who makes groups.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The same machine, where another one makes groups.
    #[cfg(feature = "systemd")]
    pub(crate) fn set_driver(&mut self, driver: Driver) {
        self.driver = driver;
    }

    /// What was found.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Makes the groups of a container and writes its limits, all but the device rules.
    ///
    /// `path` is `linux.cgroupsPath`: an absolute path starts at each hierarchy's root, a relative one at the group of this
    /// process (v2: at its parent), none is `/longshore-<id>.scope`. A group that is there already is used, unless it has processes or is frozen. An
    /// ordinary user who may make no group gets none, if neither a path nor a limit is asked for.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) and [`Unsupported`](crate::ErrorKind::Unsupported) with the field;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) or [`Io`](crate::ErrorKind::Io) with file and value. What had been made is removed.
    pub fn create(&self, id: &ContainerId, path: Option<&Path>, limits: &Limits) -> Result<Cgroup> {
        let wanted = Wanted::new(id, path)?;
        let mut cgroup = Cgroup::default();
        let made = self
            .make_all(&wanted, limits, &mut cgroup)
            .and_then(|()| cgroup.write(limits));
        match made {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                // The first error is the one to tell; groups with processes of others are not in the list.
                let _ = cgroup.remove();
                Err(error)
            }
        }
    }

    /// Finds the groups of a container that another process made. Groups that are gone are left out.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) or [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn open(&self, location: &Location) -> Result<Cgroup> {
        let mut cgroup = self.names(location).wake();
        let mut members = Vec::with_capacity(cgroup.members.len());
        for member in std::mem::take(&mut cgroup.members) {
            let group = member.name.open();
            match group.inode() {
                Ok(inode) => members.push(Member::open(member.name.known_as(inode), group)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(&group.path, "open the group", errno)),
            }
        }
        cgroup.members = members;
        Ok(cgroup)
    }

    /// The groups of a container that another process made, without a look whether they are still there.
    pub(crate) fn names(&self, location: &Location) -> Names {
        let (mut names, mut elsewhere) = (Vec::with_capacity(location.places.len()), Vec::new());
        for place in &location.places {
            match self.trees.iter().find(|tree| tree.root.path == place.mount) {
                Some(tree) => names.push(Name::new(tree, &place.path, place.inode, &names)),
                None => elsewhere.push(place.clone()),
            }
        }
        Names::new(names, elsewhere, location.unit.clone())
    }

    /// Finds the groups that [`create`](Self::create) would use, without making any: what a program that died while it
    /// created a container may have left.
    ///
    /// # Errors
    /// As [`create`](Self::create) for the path, and as [`open`](Self::open).
    pub fn find(&self, id: &ContainerId, path: Option<&Path>) -> Result<Cgroup> {
        let wanted = Wanted::new(id, path)?;
        let mut cgroup = Cgroup::default();
        for (at, hierarchy) in self.host.hierarchies.iter().enumerate() {
            let beside = match &wanted {
                Wanted::Ours(ours) => Wanted::Relative(ours.clone()).within(hierarchy).ok(),
                _ => None,
            };
            for path in [wanted.within(hierarchy).ok(), beside].into_iter().flatten() {
                if let Some(group) = self.trees[at].root.find(&path)? {
                    self.take_in(&mut cgroup, at, &path, group)?;
                    break;
                }
            }
        }
        Ok(cgroup)
    }

    /// Makes the groups that a container lacks for limits that it did not have when it was made; none if it lacks none. The container's processes are
    /// not in them before [`Cgroup::gather`].
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn widen(
        &self,
        id: &ContainerId,
        path: Option<&Path>,
        cgroup: &Cgroup,
        limits: &Limits,
    ) -> Result<Option<Cgroup>> {
        let wanted = match &cgroup.unit {
            Some(unit) => Wanted::Unit(unit.group.clone()),
            None => Wanted::new(id, path)?,
        };
        let asked = limits.controllers(Home::V1);
        let before = cgroup.location();
        let mut location = before.clone();
        for (at, hierarchy) in self.host.hierarchies.iter().enumerate() {
            let is_asked = matches!(&hierarchy.kind, Kind::V1 { controllers, .. }
                if controllers.iter().any(|c| asked.contains(c.as_str())));
            if !is_asked || before.places.iter().any(|p| p.mount == hierarchy.mount_point) {
                continue;
            }
            let path = wanted.within(hierarchy)?;
            let group = self.make(at, &path, wanted.claim(), limits)?;
            location.places.push(Place {
                mount: hierarchy.mount_point.clone(),
                path,
                inode: group.inode().ok(),
            });
        }
        if location == before {
            return Ok(None);
        }
        self.open(&location).map(Some)
    }

    pub(super) fn make_all(&self, wanted: &Wanted, limits: &Limits, cgroup: &mut Cgroup) -> Result<()> {
        let asked = limits.controllers(Home::V1);
        for (at, hierarchy) in self.host.hierarchies.iter().enumerate() {
            if !limits.everywhere && !self.wants(&hierarchy.kind, &asked) {
                self.refuse_frozen(at, wanted)?;
                continue;
            }
            let mut path = wanted.within(hierarchy)?;
            let mut made = self.make(at, &path, wanted.claim(), limits);
            if let (Err(Error::Cgroup { source, .. }), Wanted::Ours(ours)) = (&made, wanted)
                && is_refusal(source)
                && let Ok(beside) = Wanted::Relative(ours.clone()).within(hierarchy)
            {
                // An ordinary user may have been given the part of the tree that it runs in.
                let second = self.make(at, &beside, Claim::Ours, limits);
                if second.is_ok() {
                    (path, made) = (beside, second);
                }
            }
            let made = match made {
                Err(Error::Cgroup { path, action, source }) if is_refusal(&source) => {
                    // Without root there may be no group, if nothing depends on it.
                    let asked = (!matches!(wanted, Wanted::Ours(_))).then_some("linux.cgroupsPath");
                    let Some(field) = self.dependent(&hierarchy.kind, limits).or(asked) else {
                        continue;
                    };
                    // The words by which runc's callers know it.
                    let why = if asked.is_some() {
                        "unable to apply cgroup configuration"
                    } else {
                        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
                    };
                    return Err(Error::Cgroup {
                        path,
                        action: format!("{action} for {field}: {why}"),
                        source,
                    });
                }
                made => made?,
            };
            self.take_in(cgroup, at, &path, made)?;
        }
        if cgroup.members.is_empty()
            && let Some(field) = limits.first_field()
        {
            let reason = "this machine has no cgroup hierarchy mounted that could hold a group".to_owned();
            return Err(Error::Unsupported {
                field: field.to_owned(),
                reason,
            });
        }
        Ok(())
    }

    /// v1's freezer may have a group at the path that the container is to have, which somebody froze: a mistake, as with any other.
    fn refuse_frozen(&self, at: usize, wanted: &Wanted) -> Result<()> {
        let hierarchy = &self.host.hierarchies[at];
        if !hierarchy.has("freezer") || matches!(wanted, Wanted::Ours(_)) {
            return Ok(());
        }
        match self.trees[at].root.find(&wanted.within(hierarchy)?)? {
            Some(group) if group.freezes(&hierarchy.kind)? => Err(frozen(&group.path)),
            _ => Ok(()),
        }
    }

    /// Whether a container needs a group in a hierarchy.
    fn wants(&self, kind: &Kind, asked: &BTreeSet<&str>) -> bool {
        let Kind::V1 { controllers, name } = kind else {
            return true;
        };
        let has_v2 = self.host.hierarchies.iter().any(super::host::Hierarchy::is_v2);
        let always = |c: &str| ALWAYS.contains(&c) && !(c == "freezer" && has_v2);
        name.as_deref() == Some("systemd") || controllers.iter().any(|c| always(c) || asked.contains(c.as_str()))
    }

    /// The first field that a limit in this hierarchy serves.
    fn dependent<'a>(&self, kind: &Kind, limits: &'a Limits) -> Option<&'a str> {
        let of = |w: &&super::limits::Write| match kind {
            Kind::V2 => w.home == Home::V2,
            Kind::V1 { controllers, .. } => w.home == Home::V1 && controllers.contains(&w.controller),
        };
        let devices = match kind {
            Kind::V1 { controllers, .. } => controllers.contains("devices"),
            Kind::V2 => self.host.home("devices") == Some(Home::V2),
        };
        let field = limits.writes.iter().find(of).map(|w| w.field.as_str());
        field.or(
            (devices && limits.devices.asked && rustix::process::geteuid().is_root())
                .then_some("linux.resources.devices"),
        )
    }

    /// Adds a group that is open.
    fn take_in(&self, cgroup: &mut Cgroup, at: usize, path: &Path, group: Group) -> Result<()> {
        let inode = group
            .inode()
            .map_err(|errno| failed(&group.path, "look at the group", errno))?;
        let known = cgroup.members.iter().map(|member| &member.name);
        let name = Name::new(&self.trees[at], path, Some(inode), known);
        cgroup.members.push(Member::open(name, group));
        Ok(())
    }

    /// Makes a group and those above it that are missing.
    fn make(&self, at: usize, path: &Path, claim: Claim, limits: &Limits) -> Result<Group> {
        for _ in 0..WALKS {
            if let Some(group) = self.walk(at, path, claim, limits)? {
                return Ok(group);
            }
        }
        let path = self.trees[at].root.path.join(path);
        Err(Error::Cgroup {
            path,
            action: "make the group: others keep removing it".into(),
            source: Errno::NOENT.into(),
        })
    }

    /// One try; `None` if a group of the path vanished on the way.
    fn walk(&self, at: usize, path: &Path, claim: Claim, limits: &Limits) -> Result<Option<Group>> {
        let hierarchy = &self.host.hierarchies[at];
        let mut walked = None;
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            let group = walked.as_ref().unwrap_or(&self.trees[at].root);
            if hierarchy.is_v2() {
                prepare::enable(group, &self.host, limits)?;
            }
            let whole = group.path.join(name);
            let fault = |source| Error::Cgroup {
                path: whole.clone(),
                action: "make the group".into(),
                source,
            };
            let last = names.peek().is_none();
            // Those on the way are there but for the first container of all.
            if !last
                && !hierarchy.has("cpuset")
                && let Some(next) = group.find(Path::new(name))?
            {
                walked = Some(next);
                continue;
            }
            let mut fresh = match group.make(name) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                made => made.map_err(fault)?,
            };
            if last && !fresh && claim == Claim::Ours && group.unmake(name).is_ok() {
                // What a killed program left behind; its limits must not outlive it.
                fresh = group.make(name).map_err(fault)?;
            }
            let Some(next) = group.find(Path::new(name))? else {
                return Ok(None);
            };
            if last && !fresh && next.freezes(&hierarchy.kind)? {
                return Err(frozen(&whole));
            }
            if last && !fresh && claim != Claim::Given && !next.is_unused()? {
                // Somebody else's, which this user could not have joined in any case: as if it could not be made.
                rustix::fs::access(whole.join("cgroup.procs"), rustix::fs::Access::WRITE_OK)
                    .map_err(|errno| fault(errno.into()))?;
                return Err(Error::Cgroup {
                    path: whole,
                    action: "use the group for a new container: the container's cgroup is not empty; choose another cgroupsPath"
                        .into(),
                    source: Errno::BUSY.into(),
                });
            }
            if hierarchy.has("cpuset") {
                let empty = match fresh {
                    true => prepare::SETS.to_vec(),
                    false => prepare::empty_sets(&next)?,
                };
                prepare::inherit_sets(group, &next, &empty)?;
            }
            walked = Some(next);
        }
        Ok(walked)
    }
}

fn frozen(path: &Path) -> Error {
    Error::Cgroup {
        path: path.to_owned(),
        action: "use the group for a new container: container's cgroup unexpectedly frozen; thaw it or choose another cgroupsPath"
            .into(),
        source: Errno::BUSY.into(),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

#[cfg(test)]
mod tests;
