//! systemd's readiness protocol (sd_notify(3)): a socket for the container, and what it says there passed on to the one that `NOTIFY_SOCKET` names.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use anyhow::Context;
use longshore_runtime::ContainerId;
use oci_spec::runtime::{MountBuilder, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Where the container finds it.
const INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";

/// A container's notify socket. Its directory is made at the create and goes with the container.
#[derive(Debug)]
pub(crate) struct Notify {
    host: PathBuf,
    directory: PathBuf,
}

/// The socket in its place: what a container says is kept until somebody reads it.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: UnixDatagram,
    host: PathBuf,
}

/// Whether the host is told the container's pid: it is if nobody of this program stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MainPid {
    Tell,
    Keep,
}

impl Notify {
    /// If this program was started with a notify socket.
    pub(crate) fn from_environment(root: &Path, id: &ContainerId) -> Option<Self> {
        let host = std::env::var_os("NOTIFY_SOCKET").filter(|host| !host.is_empty())?;
        Some(Self {
            host: host.into(),
            directory: directory(root, id),
        })
    }

    /// Makes the directory and tells the container of it.
    pub(crate) fn prepare(&self, spec: &mut Spec) -> anyhow::Result<()> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.directory);
        made.with_context(|| format!("make {}", self.directory.display()))?;
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
        let mount = MountBuilder::default()
            .destination(INSIDE)
            .source(&self.directory)
            .options(options)
            .build()
            .context("describe the mount of the notify socket")?;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
        if let Some(process) = spec.process_mut() {
            let mut env = process.env().clone().unwrap_or_default();
            env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
            process.set_env(Some(env));
        }
        Ok(())
    }

    /// Puts the socket there, before the container's program runs. A container that was created without one gets none.
    pub(crate) fn bind(self) -> anyhow::Result<Option<Bound>> {
        if !self.directory.is_dir() {
            return Ok(None);
        }
        let path = self.directory.join(SOCKET);
        let bound = UnixDatagram::bind(&path).and_then(|socket| {
            // The container's user is any.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
            Ok(socket)
        });
        let socket = bound.with_context(|| format!("make the socket {}", path.display()))?;
        Ok(Some(Bound {
            socket,
            host: self.host,
        }))
    }
}

impl Bound {
    /// Waits until the container says that it is ready, or ends, and passes that on. Blocks.
    pub(crate) fn pass_on(&self, pid: u32, main_pid: MainPid) -> anyhow::Result<()> {
        let Some(ready) = self.ready_line(pid)? else {
            return Ok(());
        };
        let host = UnixDatagram::unbound().context("make a socket")?;
        let say = |text: String| {
            host.send_to_addr(text.as_bytes(), &address(&self.host)?)
                .with_context(|| format!("tell {}", self.host.display()))
        };
        say(format!("{ready}\n"))?;
        if main_pid == MainPid::Tell {
            say(format!("MAINPID={pid}"))?;
        }
        Ok(())
    }

    /// The container's word that it is ready; none from one that has ended.
    fn ready_line(&self, pid: u32) -> anyhow::Result<Option<String>> {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(process) = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return Ok(None);
        };
        self.socket.set_nonblocking(true).context("read the notify socket")?;
        let mut bytes = [0u8; 4096];
        loop {
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&process, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled.context("wait for the container to be ready")?,
            };
            let has_ended = !fds[1].revents().is_empty();
            match self.socket.recv(&mut bytes) {
                Ok(length) => {
                    // A datagram is a whole message.
                    let text = String::from_utf8_lossy(&bytes[..length]);
                    if let Some(line) = text.lines().find(|line| line.starts_with("READY=")) {
                        return Ok(Some(line.to_owned()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && has_ended => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("read the notify socket"),
            }
        }
    }
}

/// Removes what [`Notify::prepare`] made, if it did.
pub(crate) fn remove(root: &Path, id: &ContainerId) {
    // One that stays behind is reused.
    let _ = std::fs::remove_dir_all(directory(root, id));
}

/// Beside the container's state, which is the executor's own: no id has a tilde.
fn directory(root: &Path, id: &ContainerId) -> PathBuf {
    root.join(format!("notify~{id}"))
}

/// A path, or an abstract name behind an `@`.
fn address(host: &Path) -> io::Result<SocketAddr> {
    match host.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_all_is_ready_is_passed_on_and_nothing_else() {
        let place = tempfile::tempdir().expect("a directory");
        let host = UnixDatagram::bind(place.path().join("host")).expect("a socket");
        let notify = Notify {
            host: place.path().join("host"),
            directory: place.path().join("notify~x"),
        };
        let mut spec = Spec::default();
        notify.prepare(&mut spec).expect("the directory is made");
        let env = spec.process().as_ref().and_then(|process| process.env().clone());
        assert!(env.is_some_and(|env| env.contains(&"NOTIFY_SOCKET=/run/notify/notify.sock".to_owned())));
        let bound = notify.bind().expect("bound").expect("the directory is there");
        let container = UnixDatagram::unbound().expect("a socket");
        for said in ["STATUS=starting", "STATUS=up\nREADY=1\nX=y"] {
            let sent = container.send_to(said.as_bytes(), place.path().join("notify~x").join(SOCKET));
            sent.expect("it is read later");
        }
        bound.pass_on(std::process::id(), MainPid::Tell).expect("told");
        let mut bytes = [0u8; 64];
        let mut heard = || {
            let length = host.recv(&mut bytes).expect("a message");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        assert_eq!(heard(), "READY=1\n");
        assert_eq!(heard(), format!("MAINPID={}", std::process::id()));
    }
}
