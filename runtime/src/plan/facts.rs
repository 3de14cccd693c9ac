use std::path::PathBuf;

use longshore_linux::{Namespaces, read_procfs};

use crate::seccomp::FilterCache;
use crate::{Error, Result, cgroup};

/// What a plan has to know of the machine and of the calling process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostFacts {
    /// Effective user of the process.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Whether it may mount, make namespaces and set id maps as it likes (`CAP_SYS_ADMIN`).
    pub privilege: Privilege,
    /// The kernel's release, as (major, minor).
    pub kernel: (u32, u32),
    /// The cgroup hierarchies.
    pub cgroups: cgroup::Host,
    /// The highest capability that the kernel knows.
    pub last_capability: u32,
    /// Whether AppArmor is enabled.
    pub apparmor: bool,
    /// Whether SELinux is enabled and has a policy.
    pub selinux: bool,
    /// Where the resctrl filesystem is mounted, if it is (Intel RDT and its likes).
    pub resctrl: Option<PathBuf>,
}

/// What the calling process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Privilege {
    /// All that a container needs.
    Full,
    /// Only what a user namespace of its own gives.
    None,
}

impl HostFacts {
    /// Asks this machine.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the kernel does not tell its release or the process's capabilities.
    pub fn gather() -> Result<Self> {
        Self::gather_with(cgroup::Host::detect()?)
    }

    /// Asks for all but the cgroup hierarchies, which are known.
    pub(crate) fn gather_with(cgroups: cgroup::Host) -> Result<Self> {
        const CAP_SYS_ADMIN: u64 = 1 << 21;
        let capabilities = longshore_linux::capabilities().map_err(|e| Error::Io {
            action: "read the process's own capabilities".into(),
            source: e.into(),
        })?;
        let uname = rustix::system::uname();
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            privilege: if capabilities.effective & CAP_SYS_ADMIN != 0 {
                Privilege::Full
            } else {
                Privilege::None
            },
            kernel: parse_release(&uname.release().to_string_lossy()),
            cgroups,
            last_capability: read_procfs("/proc/sys/kernel/cap_last_cap")
                .ok()
                .and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok())
                .unwrap_or(40),
            apparmor: apparmor_enabled(),
            selinux: selinux_enabled(),
            resctrl: crate::resctrl::find_mount(),
        })
    }
}

fn apparmor_enabled() -> bool {
    let on = std::fs::read("/sys/module/apparmor/parameters/enabled");
    std::path::Path::new("/sys/kernel/security/apparmor").exists() && on.is_ok_and(|text| text.starts_with(b"Y"))
}

/// Before a policy is loaded all is labelled `kernel`.
fn selinux_enabled() -> bool {
    const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
    let mounted = rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|s| s.f_type as u64 == SELINUX_MAGIC);
    let label = || std::fs::read_to_string("/proc/thread-self/attr/current").unwrap_or_default();
    mounted && label().trim_end_matches(['\0', '\n']) != "kernel"
}

fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What a plan is made for, besides the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanOptions {
    /// The bundle's directory, absolute: relative paths of the spec start there.
    pub bundle: PathBuf,
    /// What makes up the root filesystem; empty when `root.path` is ready.
    pub rootfs: Vec<longshore_linux::Mount>,
    /// Whether the container dies with the host.
    pub lifetime: crate::Lifetime,
    /// How many further descriptors the program gets, from 3 on.
    pub descriptors: usize,
    /// The name of the session keyring that the processes get; none leaves them the caller's.
    pub keyring: Option<String>,
    /// Filters that were compiled before.
    pub filters: FilterCache,
    /// Namespaces of a container that is entered, besides those that its spec tells of.
    pub(crate) also: Namespaces,
    /// How the container's root becomes the root.
    pub root_entry: RootEntry,
}

/// How a container's root becomes the root of its mount namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootEntry {
    /// By pivot_root(2): nothing of the host's tree is left in the namespace.
    #[default]
    Pivot,
    /// By moving it over the host's root and chroot(2), for hosts whose root is an initramfs, which can't be pivoted (`runc --no-pivot`). The host's tree
    /// lies below and is unreachable but for somebody with `CAP_SYS_CHROOT`; its procfs and sysfs are taken away or covered, so that a user
    /// namespace inside may not mount them unmasked.
    Move,
}

impl PlanOptions {
    /// A tied container of a bundle whose root is ready.
    pub fn new(bundle: impl Into<PathBuf>) -> Self {
        Self {
            bundle: bundle.into(),
            rootfs: Vec::new(),
            lifetime: crate::Lifetime::Tied,
            descriptors: 0,
            root_entry: RootEntry::Pivot,
            keyring: None,
            filters: FilterCache::new(),
            also: Namespaces::empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_its_first_two_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v782"), (6, 18));
        assert_eq!(parse_release("6.1"), (6, 1));
        assert_eq!(parse_release(""), (0, 0));
    }
}
