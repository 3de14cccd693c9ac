use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use longshore_linux::{CloneOptions, Cloned, Namespaces, clone3, send_signal};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::maps::{MapWriter, write_id_maps};
use super::{io_error, wait_and_reap};
use crate::Result;
use crate::init;
use crate::plan::op::IdMaps;

const SIGKILL: i32 = 9;

/// User namespaces that only say how ids are mapped, each made once. Nothing runs in them.
#[derive(Debug, Default)]
pub(super) struct Mappings(Vec<(IdMaps, OwnedFd)>);

impl Mappings {
    /// The user namespace with these maps. The kernel makes one only with a process in it, which is gone when this returns.
    pub(super) fn get(&mut self, maps: &IdMaps) -> Result<&OwnedFd> {
        let at = match self.0.iter().position(|(known, _)| known == maps) {
            Some(at) => at,
            None => {
                self.0.push((maps.clone(), make(maps)?));
                self.0.len() - 1
            }
        };
        Ok(&self.0[at].1)
    }
}

/// A process that is killed when it is no longer needed.
struct Holder(OwnedFd);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = send_signal(&self.0, SIGKILL);
        wait_and_reap(&self.0);
    }
}

#[allow(unsafe_code)]
fn make(maps: &IdMaps) -> Result<OwnedFd> {
    let action = "make a user namespace to map the ids of a mount";
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(io_error(action))?;
    // The child keeps no descriptor from 3 on but its own; none of these may be below.
    let above = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(io_error(action));
    let (_ours, theirs) = (above(ours)?, above(theirs)?);
    // SAFETY: the child goes straight into code that is made for it and never returns.
    match unsafe { clone3(CloneOptions::new(Namespaces::USER)) } {
        Err(errno) => Err(errno).map_err(io_error(action)),
        // SAFETY: this is the child, right after the clone, and the socket is open.
        Ok(Cloned::Child) => unsafe { init::hold(theirs.as_raw_fd()) },
        Ok(Cloned::Parent { pid, pidfd }) => {
            let _holder = Holder(pidfd);
            let pid = pid.as_raw_nonzero().get();
            write_id_maps(pid, maps, MapWriter::Ourselves, true)?;
            of_process(pid)
        }
    }
}

/// The user namespace of a process that waits for us.
pub(super) fn of_process(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/user");
    openat(CWD, Path::new(&path), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io_error(format!("open the user namespace {path}")))
}
