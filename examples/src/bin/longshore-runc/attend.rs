//! What `run` and `exec` have in common: where the streams go, and staying with a process until it ends.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use longshore_runtime::{ContainerId, Executor, Io, LinuxExecutor, ProcessId, Reaper, Terminal};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::args::Arguments;
use crate::console::{ConsoleSocket, HostTerminal, PlainLines, Resizer, Session, connect, send_descriptor};
use crate::failure::{errno_text, path_error};
use crate::log::Log;
use crate::signals::Signals;

/// Whether the command stays with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Foreground,
    Detached,
}

impl Presence {
    /// Who learns how the process ends: the caller, if this program does not stay. It may end before this program does.
    pub(crate) fn reaper(self) -> Reaper {
        match self {
            Self::Foreground => Reaper::Host,
            Self::Detached => Reaper::Heir,
        }
    }
}

/// How a process is connected, as the command line asks.
#[derive(Debug)]
pub(crate) struct Connection {
    presence: Presence,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    /// Taken before the first thread is started.
    signals: Option<Signals>,
    terminal: Option<(HostTerminal, Terminal)>,
}

impl Connection {
    /// Reads the flags, whose paths are relative to the directory where the program was started.
    pub(crate) fn new(arguments: &Arguments, presence: Presence) -> anyhow::Result<Self> {
        let path = |flag| arguments.filled(flag).map(std::path::absolute).transpose();
        Ok(Self {
            presence,
            console_socket: path("console-socket")?,
            pid_file: path("pid-file")?,
            pidfd_socket: path("pidfd-socket")?,
            signals: match presence {
                Presence::Foreground => Some(Signals::take()?),
                Presence::Detached => None,
            },
            terminal: None,
        })
    }

    /// The streams of a process with or without a terminal.
    pub(crate) fn io(&mut self, wants_terminal: bool) -> anyhow::Result<Io> {
        match (self.presence, wants_terminal, &self.console_socket) {
            (Presence::Detached, true, None) => {
                bail!("cannot allocate tty if runc will detach without setting console socket")
            }
            (Presence::Foreground, _, Some(_)) | (_, false, Some(_)) => {
                bail!("cannot use console socket if runc will not detach or allocate tty")
            }
            (Presence::Detached, true, Some(socket)) => Ok(Io::custom(ConsoleSocket::connect(socket)?)),
            (Presence::Foreground, true, None) => {
                let (io, terminal) = Io::pty();
                self.terminal = Some((HostTerminal::find()?, terminal));
                Ok(Io::custom(PlainLines(io.into_streams())))
            }
            (_, false, None) => Ok(Io::inherit()),
        }
    }

    /// Tells the process's pid to whom the command line names.
    pub(crate) fn announce(&self, pid: u32) -> anyhow::Result<()> {
        if let Some(path) = &self.pidfd_socket {
            let socket = connect(path)?;
            let process = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .context("the process has no pid")?;
            let pidfd = pidfd_open(process, PidfdFlags::empty()).context("open a pidfd")?;
            send_descriptor(&socket, &pidfd, b"pidfd").context("send the pidfd")?;
        }
        match &self.pid_file {
            Some(path) => write_pid_file(path, pid),
            None => Ok(()),
        }
    }

    /// Stays with a process until it ends, unless it is detached; its exit code.
    pub(crate) async fn attend(
        mut self,
        executor: &LinuxExecutor,
        (id, process): (&ContainerId, &ProcessId),
        pid: u32,
        log: &Log,
    ) -> anyhow::Result<u8> {
        let Some(signals) = self.signals.take() else {
            return Ok(0);
        };
        let session = match self.terminal.take() {
            Some((host, terminal)) => Some(Session::connect(host, terminal.master().await?)?),
            None => None,
        };
        let resizer = session.as_ref().map(Session::resizer).transpose()?;
        resizer.iter().for_each(Resizer::resize);
        signals.serve(pid, resizer.as_ref(), log)?;
        let status = executor.wait(id, process).await?;
        if let Some(session) = session {
            session.finish();
        }
        log.debug(|| format!("process exited, pid={pid} status={}", status.code));
        Ok(u8::try_from(status.code).unwrap_or(u8::MAX))
    }
}

/// Writes a pid file that is there whole or not at all.
fn write_pid_file(path: &Path, pid: u32) -> anyhow::Result<()> {
    let name = path.file_name().context("--pid-file is not the path of a file")?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    let opened = File::options()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&temporary);
    let mut file = opened.map_err(|error| path_error("open", &temporary, &error))?;
    let written = file
        .write_all(pid.to_string().as_bytes())
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
        anyhow::anyhow!("write {}: {}", path.display(), errno_text(&error))
    })
}
