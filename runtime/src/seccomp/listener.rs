use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

use super::rules::{ALLOW, LOG, NOTIFY, Policy};
use crate::{Error, Result};

/// How the descriptor of a filter's listener leaves the process that loaded the filter and that is subject to it by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handover {
    /// By sendmsg(2), which the filter lets pass.
    Send,
    /// By its number, told by write(2): the host takes the descriptor out (pidfd_getfd(2)) and the process waits in read(2), which may be
    /// the agent's to answer. For filters that hand sendmsg(2) to the agent. The host needs `CAP_SYS_PTRACE`.
    Take,
}

/// The way out that a policy leaves; `None` if no call goes to an agent.
pub(super) fn handover(profile: &LinuxSeccomp, policy: &Policy) -> Result<Option<Handover>> {
    let refused = |field: &str, reason: &str| Error::InvalidSpec {
        field: format!("linux.seccomp.{field}"),
        reason: reason.into(),
    };
    let path = profile.listener_path().as_deref().unwrap_or(Path::new(""));
    if path.as_os_str().is_empty() && profile.listener_metadata().as_ref().is_some_and(|m| !m.is_empty()) {
        return Err(refused(
            "listenerMetadata",
            "it is for an agent, and linux.seccomp.listenerPath is missing",
        ));
    }
    if !policy.notifies() {
        return Ok(None);
    }
    if path.as_os_str().is_empty() {
        return Err(refused(
            "listenerPath",
            "it is missing, and an action is SCMP_ACT_NOTIFY",
        ));
    }
    let passes = |name| matches!(policy.always(name), Some(ALLOW | LOG));
    if passes("sendmsg") {
        Ok(Some(Handover::Send))
    } else if passes("write") && (passes("read") || policy.always("read") == Some(NOTIFY)) {
        Ok(Some(Handover::Take))
    } else {
        Err(refused(
            "syscalls",
            "the listener's descriptor can't be handed to the agent: allow sendmsg, or write with read allowed or SCMP_ACT_NOTIFY, for any arguments",
        ))
    }
}
