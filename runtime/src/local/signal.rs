//! How far signals go.

use longshore_linux::{Errno, send_signal};

use super::container::Container;
use super::wrong_status;
use crate::Result;
use crate::host::io_error;

const SIGKILL: i32 = 9;

pub(super) fn kill(container: &Container, signal: i32) -> Result<()> {
    let gone = || wrong_status(container, "kill");
    let pidfd = container.init.pidfd.as_ref().ok_or_else(gone)?;
    match send_signal(pidfd, signal) {
        Err(Errno::SRCH) => Err(gone()),
        sent => sent.map_err(io_error(format!(
            "send signal {signal} to container '{}'",
            container.id
        ))),
    }
}

/// Whether there are processes, in groups that only the container has, that the end of init does not end.
pub(super) fn outlives_init(container: &Container) -> Result<bool> {
    Ok(!container.facts.has_own_pids && container.has_groups() && !container.cgroup().pids()?.is_empty())
}

/// To every process: by the cgroup, or, without one, by the PID namespace whose init takes all with it.
pub(super) fn kill_all(container: &Container, signal: i32) -> Result<()> {
    if container.has_groups() {
        return match signal {
            SIGKILL => container.cgroup().kill(),
            _ => container.cgroup().signal_all(signal),
        };
    }
    if signal == SIGKILL && container.facts.has_own_pids {
        return kill(container, signal);
    }
    Err(crate::plan::paths::unsupported(
        "linux.cgroupsPath",
        "a signal to all processes of a container without a cgroup",
    ))
}
