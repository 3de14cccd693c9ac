//! Id mappings of a user namespace (user_namespaces(7)).

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder, User};

use crate::{Error, Result};

/// The kernel takes at most so many lines in `uid_map`.
const MAX_LINES: usize = 340;

/// Which users and groups of the host those of a container are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMappings {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl IdMappings {
    /// The container's root is this user and group of the host, and there is nobody else: what anyone may have
    /// without help.
    pub fn single(uid: u32, gid: u32) -> Self {
        Self::default().uids(0, uid, 1).gids(0, gid, 1)
    }

    /// Adds `count` users, from `container` in the container and `host` on the host.
    #[must_use]
    pub fn uids(mut self, container: u32, host: u32, count: u32) -> Self {
        self.uids.push(mapping(container, host, count));
        self
    }

    /// Adds `count` groups, from `container` in the container and `host` on the host.
    #[must_use]
    pub fn gids(mut self, container: u32, host: u32, count: u32) -> Self {
        self.gids.push(mapping(container, host, count));
        self
    }

    /// Whether a user of the container is somebody on the host.
    pub fn has_uid(&self, uid: u32) -> bool {
        covers(&self.uids, uid)
    }

    /// Whether a group of the container is one on the host.
    pub fn has_gid(&self, gid: u32) -> bool {
        covers(&self.gids, gid)
    }

    /// Whether this is one user and one group, so that supplementary groups can't be set.
    pub fn is_single(&self) -> bool {
        let one = |list: &[LinuxIdMapping]| list.len() == 1 && list[0].size() == 1;
        one(&self.uids) && one(&self.gids)
    }

    /// Those of a spec with a user namespace of its own.
    pub(super) fn of_spec(linux: &Linux) -> Option<Self> {
        let list = |list: &Option<Vec<LinuxIdMapping>>| list.clone().unwrap_or_default();
        let (uids, gids) = (list(linux.uid_mappings()), list(linux.gid_mappings()));
        (!uids.is_empty() && !gids.is_empty()).then_some(Self { uids, gids })
    }

    /// Leaves a user the supplementary groups that have a mapping; none where there is a single one, because
    /// setgroups(2) is denied there.
    pub(super) fn fit(&self, user: &mut User) -> Result<()> {
        if !self.has_uid(user.uid()) {
            return Err(Error::UnmappedId {
                what: "user",
                id: user.uid(),
            });
        }
        if !self.has_gid(user.gid()) {
            return Err(Error::UnmappedId {
                what: "group",
                id: user.gid(),
            });
        }
        let gids = user.additional_gids().clone().unwrap_or_default();
        let gids: Vec<u32> = match self.is_single() {
            true => Vec::new(),
            false => gids.into_iter().filter(|gid| self.has_gid(*gid)).collect(),
        };
        user.set_additional_gids((!gids.is_empty()).then_some(gids));
        Ok(())
    }

    pub(super) fn for_spec(&self) -> Result<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)> {
        check("uid mapping", &self.uids)?;
        check("gid mapping", &self.gids)?;
        Ok((self.uids.clone(), self.gids.clone()))
    }
}

fn mapping(container: u32, host: u32, count: u32) -> LinuxIdMapping {
    let builder = LinuxIdMappingBuilder::default()
        .container_id(container)
        .host_id(host)
        .size(count);
    builder.build().expect("every field has a default")
}

fn covers(list: &[LinuxIdMapping], id: u32) -> bool {
    list.iter()
        .any(|m| id >= m.container_id() && id - m.container_id() < m.size())
}

/// The kernel's own rules, told in words instead of EINVAL.
fn check(option: &'static str, list: &[LinuxIdMapping]) -> Result<()> {
    let refuse = |m: &LinuxIdMapping, reason: &str| {
        let value = format!("{}:{}:{}", m.container_id(), m.host_id(), m.size());
        Err(Error::option(option, value, reason))
    };
    if list.is_empty() || list.len() > MAX_LINES {
        return Err(Error::option(
            option,
            format!("{} lines", list.len()),
            format!("there must be 1 to {MAX_LINES}"),
        ));
    }
    for (index, one) in list.iter().enumerate() {
        let end = |start: u32| u64::from(start) + u64::from(one.size());
        if one.size() == 0 || end(one.container_id()) > u64::from(u32::MAX) || end(one.host_id()) > u64::from(u32::MAX)
        {
            return refuse(one, "its size is 0 or goes beyond the last id");
        }
        let meets = |a: u32, b: u32, size: u32| u64::from(a) < u64::from(b) + u64::from(size) && u64::from(b) < end(a);
        let overlaps = list[..index].iter().any(|other| {
            meets(one.container_id(), other.container_id(), other.size())
                || meets(one.host_id(), other.host_id(), other.size())
        });
        if overlaps {
            return refuse(one, "it overlaps another one");
        }
    }
    Ok(())
}
