use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability};

use crate::{Error, Result};

/// What a container may do unless its options say otherwise: Docker's fourteen.
pub const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// All capabilities by their number in `<linux/capability.h>`.
const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Every capability that the runtime spec names.
pub fn all_capabilities() -> Capabilities {
    BY_NUMBER.into_iter().collect()
}

/// The capabilities that the calling thread could hand on: its bounding set. An engine that was itself started with
/// fewer than all can pass this to [`SpecBuilder::limit_capabilities`](crate::SpecBuilder::limit_capabilities), so
/// that "all" means all there are.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when `/proc/thread-self/status` can't be read.
pub fn available_capabilities() -> Result<Capabilities> {
    const STATUS: &str = "/proc/thread-self/status";
    let status = std::fs::read_to_string(STATUS).map_err(Error::io("reading", STATUS))?;
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .unwrap_or(0);
    Ok(from_mask(mask))
}

fn from_mask(mask: u64) -> Capabilities {
    BY_NUMBER
        .into_iter()
        .enumerate()
        .filter(|(number, _)| mask & (1 << number) != 0)
        .map(|(_, capability)| capability)
        .collect()
}

/// One or all capabilities, as `--cap-add` and `--cap-drop` take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapabilityName {
    /// `ALL`.
    All,
    /// A single one.
    One(Capability),
}

impl From<Capability> for CapabilityName {
    fn from(capability: Capability) -> Self {
        Self::One(capability)
    }
}

impl FromStr for CapabilityName {
    type Err = Error;

    /// `ALL`, `NET_ADMIN`, `CAP_NET_ADMIN`, in any case.
    fn from_str(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok(Self::All);
        }
        Capability::from_str(name)
            .map(Self::One)
            .map_err(|_| Error::option("capability", text, "there is none of that name; see capabilities(7)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_docker_takes_them() {
        for text in ["NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin", "net_admin"] {
            assert_eq!(text.parse::<CapabilityName>().expect(text), Capability::NetAdmin.into());
        }
        assert_eq!("all".parse::<CapabilityName>().expect("all"), CapabilityName::All);
        assert_eq!("CAP_ALL".parse::<CapabilityName>().expect("all"), CapabilityName::All);
        for text in ["", "CAP_", "CAP_CAP_CHOWN", "NET-ADMIN", "chown "] {
            text.parse::<CapabilityName>().expect_err(text);
        }
    }

    #[test]
    fn every_capability_has_its_number() {
        assert_eq!(all_capabilities().len(), BY_NUMBER.len());
        assert_eq!(from_mask(1 | 1 << 21 | 1 << 40).len(), 3);
        assert!(from_mask(1 << 21).contains(&Capability::SysAdmin));
        assert!(from_mask(1 << 40).contains(&Capability::CheckpointRestore));
        assert!(from_mask(1 << 63).is_empty());
    }

    #[test]
    fn a_process_knows_its_bounding_set() {
        let available = available_capabilities().expect("procfs");
        assert!(available.is_subset(&all_capabilities()));
    }
}
