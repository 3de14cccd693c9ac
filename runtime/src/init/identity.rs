//! Who the program is and what it may: ids, capabilities, working directory.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use longshore_linux::{
    drop_bounding_capability, join_session_keyring, set_ambient_capabilities, set_capabilities, set_cpu_affinity,
    set_group, set_groups, set_io_priority, set_memory_policy, set_personality, set_scheduler, set_user,
    verify_cwd_inside_root,
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::Child;
use super::report::{At, Call, Failure};
use crate::plan::op::{Attribute, Op, Slot, When};

/// As many bits as the most CPUs that a kernel can be built for.
const ANY_CPU_WORDS: usize = 8192 / 64;

impl Child<'_> {
    /// Performs an operation of this kind, or says that it is of another.
    pub(super) fn perform_identity(&mut self, op: &Op) -> Option<Result<(), Failure>> {
        Some(match op {
            Op::BecomeRoot { groups } => become_root(*groups),
            Op::Keyring { name, permissions } => match join_session_keyring(name, *permissions) {
                // A kernel without keys has none of the host's to leave.
                Err(Errno::NOSYS) => Ok(()),
                joined => joined.at(Call::Keyring),
            },
            Op::Attribute { proc, attribute, value } => self.set_attribute(*proc, *attribute, value),
            Op::Scheduler(attributes) => set_scheduler(*attributes).at(Call::Scheduling),
            Op::IoPriority { class, level } => set_io_priority(*class, *level).at(Call::Scheduling),
            Op::CpuAffinity(cpus) => set_cpu_affinity(cpus).at(Call::Scheduling),
            Op::AnyCpu => {
                // The kernel cuts this down to what there is and to the cgroup's cpuset. What refuses it leaves the host's own choice.
                let _ = set_cpu_affinity(&[u64::MAX; ANY_CPU_WORDS]);
                Ok(())
            }
            Op::MemoryPolicy { mode, nodes } => set_memory_policy(*mode, nodes).at(Call::Scheduling),
            Op::Personality(domain) => set_personality(*domain).at(Call::Prctl),
            Op::Home { uid } => {
                self.home.look_up(*uid);
                Ok(())
            }
            Op::Umask(mask) => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(*mask));
                Ok(())
            }
            Op::Groups(gids) => set_groups(gids).at(Call::SetGroups),
            Op::User { uid, gid } => set_group(*gid)
                .at(Call::SetGroup)
                .and_then(|()| set_user(*uid).at(Call::SetUser)),
            Op::KeepCapabilities => rustix::thread::set_keep_capabilities(true).at(Call::Prctl),
            Op::Bounding { drop } => drop
                .iter()
                .try_for_each(|n| drop_bounding_capability(*n))
                .at(Call::Bounding),
            Op::Capabilities { sets, ambient } => set_capabilities(*sets)
                .at(Call::Capabilities)
                .and_then(|()| set_ambient_capabilities(*ambient).at(Call::Ambient)),
            Op::Chdir { path, when } => self.enter(path, *when),
            _ => return None,
        })
    }

    /// Writes an attribute of ours.
    fn set_attribute(&self, proc: Slot, attribute: Attribute, value: &CStr) -> Result<(), Failure> {
        let proc = self.slots.get(proc)?;
        let (name, fallback) = match attribute {
            Attribute::AppArmorExec => (c"thread-self/attr/apparmor/exec", Some(c"thread-self/attr/exec")),
            Attribute::Exec => (c"thread-self/attr/exec", None),
            Attribute::KeyCreate => (c"thread-self/attr/keycreate", None),
        };
        match (write_own(proc, name, value), fallback) {
            (Err(Errno::NOENT), Some(fallback)) => write_own(proc, fallback, value),
            (written, _) => written,
        }
        .at(Call::Write)
    }

    /// Enters the working directory. Root may where the user may not and the other way round, so both try; where it led is then
    /// looked at: a descriptor of the host that leaked into the child would lead out of the root.
    fn enter(&mut self, path: &std::ffi::CStr, when: When) -> Result<(), Failure> {
        if self.in_cwd {
            return Ok(());
        }
        match rustix::process::chdir(path) {
            Ok(()) => {
                self.in_cwd = true;
                verify_cwd_inside_root().at(Call::Outside)
            }
            Err(Errno::ACCESS | Errno::PERM) if when == When::BeforeUser => Ok(()),
            Err(errno) => Err(errno).at(Call::Chdir),
        }
    }
}

/// Writes a file of this process in the host's procfs. No mount lies over it, and no link leads elsewhere but procfs's own to the
/// process that asks.
pub(super) fn write_own(proc: BorrowedFd<'_>, name: &CStr, value: &CStr) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(proc, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(&file, value.to_bytes()).map(drop)
}

fn become_root(groups: bool) -> Result<(), Failure> {
    if groups {
        set_groups(&[]).at(Call::SetGroups)?;
    }
    set_group(0).at(Call::SetGroup)?;
    set_user(0).at(Call::SetUser)
}
