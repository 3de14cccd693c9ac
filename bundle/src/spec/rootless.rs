//! What a spec must do without in a user namespace, and when the engine has no privileges.

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
    /// Makes a spec that works without privileges: in a [user namespace](Self::user_namespace), and without device
    /// rules. A limit, or a cgroup path, is an error unless cgroups were [delegated](CgroupAccess::Delegated): silence
    /// would pass for protection.
    pub fn rootless(mut self, rootless: Rootless) -> Self {
        self.isolation.map(rootless.mappings.clone());
        self.rootless = Some(rootless);
        self
    }
}

impl Rootless {
    pub(super) fn apply(&self, spec: &mut Spec, resources: &resources::Options) -> Result<()> {
        self.check_limits(resources)?;
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
}

/// Fits a spec into its user namespace (see [`SpecBuilder::user_namespace`]).
pub(super) fn fit_user_namespace(spec: &mut Spec, mappings: &IdMappings) -> Result<()> {
    if let Some(process) = spec.process_mut() {
        mappings.fit(process.user_mut())?;
    }
    let own_network = spec.linux().as_ref().is_some_and(has_new_network);
    for mount in spec.mounts_mut().iter_mut().flatten() {
        fit_mount(mount, mappings, own_network);
    }
    Ok(())
}

fn fit_mount(entry: &mut Mount, mappings: &IdMappings, own_network: bool) {
    if entry.typ().as_deref() == Some("sysfs") && !own_network {
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
        *entry = mount(entry.destination().clone(), "none", "/sys", options);
    }
    if let Some(options) = entry.options_mut() {
        options.retain(|option| {
            let id = |name| option.strip_prefix(name).and_then(|id| id.parse::<u32>().ok());
            id("uid=").is_none_or(|id| mappings.has_uid(id)) && id("gid=").is_none_or(|id| mappings.has_gid(id))
        });
    }
}

fn without_devices(resources: &LinuxResources) -> Option<LinuxResources> {
    let mut rest = resources.clone();
    rest.set_devices(None);
    (rest != LinuxResources::default()).then_some(rest)
}

/// Whether the container's network namespace is made with it, and so belongs to its user namespace.
fn has_new_network(linux: &Linux) -> bool {
    let namespaces = linux.namespaces().iter().flatten();
    namespaces
        .filter(|namespace| namespace.path().is_none())
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Network)
}
