//! System call filters: compiles `linux.seccomp` of the runtime spec to classic BPF, in pure Rust.
//!
//! # Semantics
//! Those of runc with libseccomp, so that a profile means the same here as there:
//!
//! - The native ABI is always filtered, with those of `architectures` that this machine can run besides. A call through
//!   any other ABI kills the thread.
//! - A name that an ABI does not know is ignored for that ABI, so that one profile serves old and new kernels.
//! - A rule without `args` decides its call, whatever rules with `args` say; of two such rules the first one counts.
//!   Rules with `args` are tried in order and the first that matches decides; what no rule matches gets the default
//!   action. The `args` of one rule must all match, unless two of them look at the same argument: then each is a rule of
//!   its own (as runc has it).
//! - A 32-bit ABI compares the low 32 bits of arguments and values.
//! - `socketcall` and `ipc`, through which some ABIs make the socket and System V calls, get the rules of those calls
//!   with the call's number in place of the first argument: the real arguments are in memory, where BPF can't look.
//!
//! # Calls newer than the profile
//! A program asks a kernel for a new call and falls back to an old one on `ENOSYS`, but not on the `EPERM` that a
//! profile written before the call existed would give. So, unless the default action lets calls pass, calls numbered above
//! the highest one that the profile names get `ENOSYS` (runc does the same by patching libseccomp's output).
//!
//! # The program
//! One section for each audit architecture, in which the calls with the same decision form ranges that are found by binary
//! search: about eight comparisons for any call, where a list makes hundreds. The kernel runs the filter once for
//! each call number when it is installed (to learn which are always allowed), so this also shortens the start of a container.

mod arch;
mod assemble;
mod lower;
mod rules;
mod table;

#[cfg(test)]
mod interpret;
#[cfg(test)]
mod tests;

use longshore_linux::SockFilter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use crate::{Error, Result};

pub use arch::Arch;

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// A compiled filter, ready for seccomp(2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// The program; never empty and never longer than the kernel takes (4096).
    pub instructions: Box<[SockFilter]>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2) with `SECCOMP_SET_MODE_FILTER`.
    pub flags: u32,
}

/// Compiles a profile for a machine whose own ABI is `native` ([`Arch::native`] on this one).
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) for an argument index above 5, an `errnoRet` above 65535 or a program too long for the
/// kernel; [`Unsupported`](crate::ErrorKind::Unsupported) for the action `SCMP_ACT_NOTIFY`.
///
/// # Example
/// ```
/// use longshore_runtime::seccomp::{self, Arch};
///
/// let profile = serde_json::from_str(
///     r#"{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" }] }"#,
/// )?;
/// let filter = seccomp::compile(&profile, Arch::X86_64)?;
/// assert!(filter.instructions.len() < 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Filter> {
    let policy = rules::Policy::new(profile, native)?;
    let instructions = lower::program(&policy);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::InvalidSpec {
            field: "linux.seccomp.syscalls".into(),
            reason: format!(
                "the filter compiles to {} instructions and the kernel takes {MAX_INSTRUCTIONS}; name fewer arguments",
                instructions.len()
            ),
        });
    }
    Ok(Filter {
        instructions: instructions.into(),
        flags: flags(profile),
    })
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` is left out: the kernel refuses it without a listener, and there is none.
fn flags(profile: &LinuxSeccomp) -> u32 {
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    profile.flags().iter().flatten().map(bit).fold(0, |all, one| all | one)
}
