//! What a spec must do without when the engine has no privileges.

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Mount, Spec};

use super::resources;
use super::volume::mount;
use super::{IdMappings, SpecBuilder};
use crate::{Error, Result};

/// What cgroups an unprivileged engine may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CgroupAccess {
    /// None: limits can't be set.
    #[default]
    None,
    /// A subtree of cgroup v2 that was delegated to the user, by systemd or by an administrator. Device rules can't
    /// be set there.
    Delegated,
}

/// The world of an engine without privileges: a user namespace, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootless {
    mappings: IdMappings,
    cgroups: CgroupAccess,
}

impl Rootless {
    /// A container whose users are mapped like this. [`IdMappings::single`] needs no help; more ids need
    /// `/etc/subuid`, `/etc/subgid` and newuidmap(1).
    pub fn new(mappings: IdMappings) -> Self {
        Self {
            mappings,
            cgroups: CgroupAccess::default(),
        }
    }

    /// The same with other cgroups.
    #[must_use]
    pub fn cgroups(mut self, access: CgroupAccess) -> Self {
        self.cgroups = access;
        self
    }
}

impl SpecBuilder {
    /// Makes a spec that works without privileges: in a user namespace, without device rules, and without what an
    /// unmapped id would be needed for.
    ///
    /// - A limit, or a cgroup path, is an error unless cgroups were [delegated](CgroupAccess::Delegated): silence
    ///   would pass for protection.
    /// - `/sys` is the host's, bound and read-only, unless the container has a network namespace of its own, which a
    ///   sysfs belongs to.
    /// - Supplementary groups without a mapping are dropped; all are where there is a single mapping, because
    ///   setgroups(2) is denied there. A user without one is an error.
    pub fn rootless(mut self, rootless: Rootless) -> Self {
        self.isolation.map(rootless.mappings.clone());
        self.rootless = Some(rootless);
        self
    }
}

impl Rootless {
    pub(super) fn apply(&self, spec: &mut Spec, resources: &resources::Options) -> Result<()> {
        self.check_limits(resources)?;
        if let Some(process) = spec.process_mut() {
            self.mappings.fit(process.user_mut())?;
        }
        let own_network = has_namespace(spec.linux().as_ref(), LinuxNamespaceType::Network);
        for mount in spec.mounts_mut().iter_mut().flatten() {
            self.fit_mount(mount, own_network);
        }
        let Some(linux) = spec.linux_mut() else { return Ok(()) };
        match self.cgroups {
            CgroupAccess::None => linux.set_resources(None).set_cgroups_path(None),
            CgroupAccess::Delegated => linux.set_resources(linux.resources().as_ref().and_then(without_devices)),
        };
        Ok(())
    }

    fn check_limits(&self, resources: &resources::Options) -> Result<()> {
        match resources.first_limit() {
            Some(option) if self.cgroups == CgroupAccess::None => Err(Error::NeedsPrivilege {
                option,
                reason: "no cgroup is delegated to this user; run in a systemd user session with cgroup v2, or as root",
            }),
            _ => Ok(()),
        }
    }

    /// Drops `uid=` and `gid=` that have no mapping, and replaces a sysfs that can't be mounted.
    fn fit_mount(&self, entry: &mut Mount, own_network: bool) {
        if entry.typ().as_deref() == Some("sysfs") && !own_network {
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
            *entry = mount(entry.destination().clone(), "none", "/sys", options);
        }
        if let Some(options) = entry.options_mut() {
            options.retain(|option| {
                let id = |name| option.strip_prefix(name).and_then(|id| id.parse::<u32>().ok());
                id("uid=").is_none_or(|id| self.mappings.has_uid(id))
                    && id("gid=").is_none_or(|id| self.mappings.has_gid(id))
            });
        }
    }
}

fn without_devices(resources: &LinuxResources) -> Option<LinuxResources> {
    let mut rest = resources.clone();
    rest.set_devices(None);
    (rest != LinuxResources::default()).then_some(rest)
}

fn has_namespace(linux: Option<&Linux>, kind: LinuxNamespaceType) -> bool {
    linux
        .and_then(|linux| linux.namespaces().as_ref())
        .is_some_and(|namespaces| namespaces.iter().any(|namespace| namespace.typ() == kind))
}
