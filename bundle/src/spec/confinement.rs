//! Capabilities, seccomp, labels, `no_new_privs`, and the switch that opens all of them.

use oci_spec::runtime::{Capabilities, Linux, LinuxCapabilities, LinuxSeccomp};

use super::SpecBuilder;
use crate::capability::{CapabilityName, DEFAULT_CAPABILITIES, all_capabilities};
use crate::seccomp::{default_profile, native_arch};

/// Whether programs can raise privileges by set-user-ID bits and file capabilities (`PR_SET_NO_NEW_PRIVS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewPrivileges {
    /// They can't. Docker allows it unless told; here an image is not trusted unless told. `sudo`, `su` and `ping`
    /// for ordinary users need [`Allow`](Self::Allow).
    #[default]
    Deny,
    /// They can.
    Allow,
}

/// The filter on a container's system calls.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Seccomp {
    /// What [`default_profile`](crate::default_profile) allows.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The caller's own.
    Profile(Box<LinuxSeccomp>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    changes: Vec<(Change, CapabilityName)>,
    limit: Option<Capabilities>,
    new_privileges: Option<NewPrivileges>,
    seccomp: Option<Seccomp>,
    apparmor: Option<String>,
    selinux: Option<String>,
    mount_label: Option<String>,
    privileged: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Add,
    Drop,
}

impl SpecBuilder {
    /// Gives a capability, or all, on top of [`DEFAULT_CAPABILITIES`](crate::DEFAULT_CAPABILITIES). Adding and
    /// dropping take effect in the order of the calls.
    pub fn cap_add(mut self, capability: impl Into<CapabilityName>) -> Self {
        self.confinement.changes.push((Change::Add, capability.into()));
        self
    }

    /// Takes a capability away, or all.
    pub fn cap_drop(mut self, capability: impl Into<CapabilityName>) -> Self {
        self.confinement.changes.push((Change::Drop, capability.into()));
        self
    }

    /// Leaves out whatever is not in `available`, such as [`available_capabilities`](crate::available_capabilities).
    pub fn limit_capabilities(mut self, available: Capabilities) -> Self {
        self.confinement.limit = Some(available);
        self
    }

    /// Whether programs can raise privileges. Default: they can't.
    pub fn new_privileges(mut self, new_privileges: NewPrivileges) -> Self {
        self.confinement.new_privileges = Some(new_privileges);
        self
    }

    /// The filter on system calls.
    pub fn seccomp(mut self, seccomp: Seccomp) -> Self {
        self.confinement.seccomp = Some(seccomp);
        self
    }

    /// The AppArmor profile, which must be loaded. Default: none is asked for.
    pub fn apparmor(mut self, profile: impl Into<String>) -> Self {
        self.confinement.apparmor = Some(profile.into());
        self
    }

    /// The SELinux label of the process, and that of the mounts. Default: none.
    pub fn selinux(mut self, process: impl Into<String>, mounts: impl Into<String>) -> Self {
        self.confinement.selinux = Some(process.into());
        self.confinement.mount_label = Some(mounts.into());
        self
    }

    /// Opens nearly everything, as `docker run --privileged`: all capabilities, all devices (their nodes come with
    /// [`host_devices`](crate::host_devices)), no seccomp, nothing masked, `/sys` writable, privileges can be raised.
    /// What other options say explicitly still counts. The namespaces stay.
    pub fn privileged(mut self) -> Self {
        self.confinement.privileged = true;
        self
    }
}

impl Options {
    pub(super) fn is_privileged(&self) -> bool {
        self.privileged
    }

    pub(super) fn no_new_privileges(&self) -> bool {
        let default = if self.privileged {
            NewPrivileges::Allow
        } else {
            NewPrivileges::Deny
        };
        self.new_privileges.unwrap_or(default) == NewPrivileges::Deny
    }

    pub(super) fn apparmor_profile(&self) -> Option<String> {
        self.apparmor.clone()
    }

    pub(super) fn selinux_label(&self) -> Option<String> {
        self.selinux.clone()
    }

    pub(super) fn capabilities(&self, uid: u32) -> LinuxCapabilities {
        capabilities_of(uid, self.bounding())
    }

    fn bounding(&self) -> Capabilities {
        let mut set: Capabilities = if self.privileged {
            all_capabilities()
        } else {
            DEFAULT_CAPABILITIES.into_iter().collect()
        };
        for (change, name) in &self.changes {
            match (change, name) {
                (Change::Add, CapabilityName::All) => set = all_capabilities(),
                (Change::Add, CapabilityName::One(capability)) => {
                    set.insert(*capability);
                }
                (Change::Drop, CapabilityName::All) => set.clear(),
                (Change::Drop, CapabilityName::One(capability)) => {
                    set.remove(capability);
                }
            }
        }
        if let Some(limit) = &self.limit {
            set.retain(|capability| limit.contains(capability));
        }
        set
    }

    pub(super) fn apply(&self, linux: &mut Linux, capabilities: Option<&LinuxCapabilities>) {
        let bounding = capabilities.and_then(|c| c.bounding().clone()).unwrap_or_default();
        let default = if self.privileged {
            Seccomp::Unconfined
        } else {
            Seccomp::Default
        };
        linux.set_seccomp(match self.seccomp.clone().unwrap_or(default) {
            Seccomp::Default => Some(default_profile(native_arch(), &bounding)),
            Seccomp::Unconfined => None,
            Seccomp::Profile(profile) => Some(*profile),
        });
        linux.set_mount_label(self.mount_label.clone());
    }
}

/// As Docker: root gets them at once, anyone else has them in the bounding set only, which is what execve(2) would
/// leave. Never inheritable (CVE-2022-24769).
pub(super) fn capabilities_of(uid: u32, bounding: Capabilities) -> LinuxCapabilities {
    let held = (uid == 0).then(|| bounding.clone());
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(bounding));
    capabilities.set_effective(held.clone());
    capabilities.set_permitted(held);
    capabilities.set_inheritable(None);
    capabilities.set_ambient(None);
    capabilities
}
