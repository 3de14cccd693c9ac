//! System call filters: compiles `linux.seccomp` of the runtime spec to classic BPF, in pure Rust.
//!
//! # Semantics
//! Those of runc with libseccomp, so that a profile means the same here as there:
//!
//! - The native ABI is always filtered, with those of `architectures` that this machine can run besides. A call through
//!   any other ABI kills the thread.
//! - A name that an ABI does not know is ignored for that ABI, so that one profile serves old and new kernels.
//! - A rule without `args` decides its call, whatever rules with `args` say; of two such rules the first one counts.
//!   Rules with `args` are tried in order and the first that matches decides (libseccomp, when such rules contradict each other,
//!   takes whichever its tree has first); what no rule matches gets the default action. The `args` of one rule must all match, unless two of them look at the same argument: then each is a rule of
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
//! # Listeners
//! `SCMP_ACT_NOTIFY` hands a call to an agent, which listens at `listenerPath` and gets the filter's descriptor before the program runs
//! (runtime spec, "The Container Process State"). The process that loads the filter is subject to it while it hands the descriptor over:
//! a profile must let it (see [`Handover`]).
//!
//! # The program
//! One section for each audit architecture, in which the calls with the same decision form ranges that are found by binary
//! search: about eight comparisons for any call, where a list makes hundreds. The kernel runs the filter once for
//! each call number when it is installed (to learn which are always allowed), so this also shortens the start of a container.

mod arch;
mod assemble;
mod cache;
mod listener;
mod lower;
mod rules;
mod table;
mod words;

#[cfg(test)]
mod interpret;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use longshore_linux::SockFilter;
use oci_spec::runtime::LinuxSeccomp;

use crate::{Error, Result};

pub use arch::Arch;
pub use cache::FilterCache;
pub use listener::Handover;
pub(crate) use words::{ACTIONS, FLAGS, Flag, OPERATORS, supported_flags};

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// A compiled filter, ready for seccomp(2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// The program; never empty and never longer than the kernel takes (4096).
    pub instructions: Arc<[SockFilter]>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2) with `SECCOMP_SET_MODE_FILTER`.
    pub flags: u32,
    /// How the listener's descriptor leaves the process, for a filter that has one (with `SECCOMP_FILTER_FLAG_NEW_LISTENER`).
    pub listener: Option<Handover>,
    /// Names of the profile that no ABI has, sorted: calls newer than this version, or misspelt. Their rules are left out.
    pub unknown: Arc<[String]>,
}

/// Compiles a profile for a machine whose own ABI is `native` ([`Arch::native`] on this one).
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) for an argument index above 5, an `errnoRet` above 65535 or a program too long for the
/// kernel; for `SCMP_ACT_NOTIFY` as the default action, for `write`, without `listenerPath`, or in a profile that does not let the
/// descriptor out.
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
    let listener = listener::handover(profile, &policy)?;
    Ok(Filter {
        instructions: instructions.into(),
        flags: flags(profile, listener),
        listener,
        unknown: policy.unknown.into(),
    })
}

/// As runc has it: without a list of flags, speculation is allowed; an empty list is none. `WAIT_KILLABLE_RECV` has no work to do without a
/// listener, and the kernel refuses it.
fn flags(profile: &LinuxSeccomp, listener: Option<Handover>) -> u32 {
    let bit = |flag| FLAGS.iter().find(|(f, _)| f == flag).map_or(0, |(_, bit)| *bit);
    let asked = match profile.flags() {
        None => words::SPEC_ALLOW,
        Some(flags) => flags.iter().map(bit).fold(0, |all, one| all | one),
    };
    match listener {
        Some(_) => asked | words::NEW_LISTENER,
        None => asked & !words::WAIT_KILLABLE_RECV,
    }
}
