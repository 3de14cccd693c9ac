//! Terminals: this program's own, the container's, and the socket over which a detached container's terminal is handed on.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::Context;
use longshore_runtime::{Drained, Error as RuntimeError, Stdio, Streams};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::failure::{errno_text, path_error};

/// The terminal at which the person sits. Dropped, it is as it was.
#[derive(Debug)]
pub(crate) struct HostTerminal {
    device: OwnedFd,
    saved: Termios,
}

impl HostTerminal {
    /// One of the three streams, or else the controlling terminal.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let streams = [rustix::stdio::stderr(), rustix::stdio::stdout(), rustix::stdio::stdin()];
        let device = match streams.into_iter().find(|stream| isatty(stream)) {
            Some(stream) => stream.try_clone_to_owned()?,
            None => {
                let path = Path::new("/dev/tty");
                let opened = File::options().read(true).write(true).open(path);
                opened.map_err(|error| path_error("open", path, &error))?.into()
            }
        };
        let saved = tcgetattr(&device).context("unable to get console")?;
        Ok(Self { device, saved })
    }

    /// Hands every key on as it is typed.
    fn make_raw(&self) -> anyhow::Result<()> {
        let mut raw = self.saved.clone();
        raw.make_raw();
        tcsetattr(&self.device, OptionalActions::Now, &raw).context("failed to set the terminal to raw mode")
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        // A terminal that has gone away needs nothing.
        let _ = tcsetattr(&self.device, OptionalActions::Now, &self.saved);
    }
}

/// Gives the container's terminal the size of the person's.
#[derive(Debug)]
pub(crate) struct Resizer {
    host: OwnedFd,
    master: File,
}

impl Resizer {
    /// Does it now.
    pub(crate) fn resize(&self) {
        // A window that has just been closed has no size, and nobody looks at it.
        if let Ok(size) = tcgetwinsize(&self.host) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }
}

/// A terminal whose line feeds are the person's terminal's to turn into new lines: one of the two must not. It is set before the container's
/// program runs, which may say something at once.
#[derive(Debug)]
pub(crate) struct PlainLines(pub(crate) Box<dyn Streams>);

impl Streams for PlainLines {
    fn open(self: Box<Self>) -> Result<Stdio, RuntimeError> {
        self.0.open()
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<(), RuntimeError> {
        let set = tcgetattr(&master).and_then(|mut modes| {
            modes.output_modes.remove(OutputModes::ONLCR);
            tcsetattr(&master, OptionalActions::Now, &modes)
        });
        set.map_err(|errno| RuntimeError::Io {
            action: "set the modes of the container's terminal".into(),
            source: errno.into(),
        })?;
        self.0.console(master)
    }

    fn drained(&mut self) -> Option<Drained> {
        self.0.drained()
    }
}

/// The container's terminal, connected to the person's.
#[derive(Debug)]
pub(crate) struct Session {
    host: HostTerminal,
    master: File,
    stop: OwnedFd,
    output: Option<JoinHandle<()>>,
}

impl Session {
    /// Connects the two: what is typed here is typed there, what is shown there is shown here.
    pub(crate) fn connect(host: HostTerminal, master: File) -> anyhow::Result<Self> {
        host.make_raw()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("make an eventfd")?;
        type_into(master.try_clone()?)?;
        let output = show(master.try_clone()?, stop.try_clone()?)?;
        Ok(Self {
            host,
            master,
            stop,
            output: Some(output),
        })
    }

    /// What follows the size of the person's terminal.
    pub(crate) fn resizer(&self) -> anyhow::Result<Resizer> {
        Ok(Resizer {
            host: self.host.device.try_clone()?,
            master: self.master.try_clone()?,
        })
    }

    /// Shows what is left to show, and gives the person's terminal back.
    pub(crate) fn finish(mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(output) = self.output.take() {
            // It does nothing that panics.
            let _ = output.join();
        }
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .context("start a thread for the terminal")
}

/// The thread that types. It ends with the program: nobody can make a read of standard input return.
fn type_into(mut master: File) -> anyhow::Result<()> {
    thread("stdin", move || {
        let mut buffer = [0; 4096];
        let mut stdin = std::io::stdin().lock();
        while let Ok(length @ 1..) = stdin.read(&mut buffer) {
            if master.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    })
    .map(drop)
}

/// The thread that shows, until the container's side is closed, or `stop` is told and nothing is left.
fn show(mut master: File, stop: OwnedFd) -> anyhow::Result<JoinHandle<()>> {
    thread("stdout", move || {
        let mut buffer = [0; 16 * 1024];
        let mut stdout = File::from(match rustix::stdio::stdout().try_clone_to_owned() {
            Ok(stdout) => stdout,
            Err(_) => return,
        });
        while wait_for_output(&master, &stop) {
            match master.read(&mut buffer) {
                Ok(length @ 1..) if stdout.write_all(&buffer[..length]).is_ok() => {}
                _ => break,
            }
        }
    })
}

fn wait_for_output(master: &File, stop: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return false,
            Ok(_) if !fds[0].revents().is_empty() => return true,
            Ok(_) => {}
        }
        // Stopped: what the container had written before is there by now.
        let mut last = [PollFd::new(master, PollFlags::IN)];
        return matches!(poll(&mut last, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..));
    }
}

/// The streams of a container whose terminal goes to whoever listens on a socket.
#[derive(Debug)]
pub(crate) struct ConsoleSocket(UnixStream);

impl ConsoleSocket {
    /// Connects to the listener.
    pub(crate) fn connect(path: &Path) -> anyhow::Result<Self> {
        connect(path).map(Self)
    }
}

impl Streams for ConsoleSocket {
    fn open(self: Box<Self>) -> Result<Stdio, RuntimeError> {
        Err(RuntimeError::InvalidSpec {
            field: "process.terminal".into(),
            reason: "a console socket is for a process with a terminal".into(),
        })
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<(), RuntimeError> {
        send_descriptor(&self.0, &master, b"/dev/ptmx").map_err(|errno| RuntimeError::Io {
            action: "send the terminal over the console socket".into(),
            source: errno.into(),
        })
    }
}

/// Connects to a Unix socket.
pub(crate) fn connect(path: &Path) -> anyhow::Result<UnixStream> {
    UnixStream::connect(path)
        .map_err(|error| anyhow::anyhow!("dial unix {}: connect: {}", path.display(), errno_text(&error)))
}

/// Sends a descriptor, and its name beside it.
pub(crate) fn send_descriptor(socket: &UnixStream, descriptor: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
