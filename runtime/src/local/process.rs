use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt, Shared};
use longshore_linux::send_signal;
use rustix::fs::{Mode, OFlags};

use super::reactor::exit_of_patiently;
use crate::host::io_error;
use crate::{ExitStatus, Result};

/// A process of a container that this program watches.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) pid: i32,
    /// None for one that had ended before this program knew of it.
    pub(crate) pidfd: Option<Arc<OwnedFd>>,
    exit: Mutex<Exit>,
    /// Ends when all of its output has reached its medium.
    drained: Option<Shared<BoxFuture<'static, ()>>>,
}

#[derive(Debug, Default)]
struct Exit {
    status: Option<ExitStatus>,
    waiters: Vec<oneshot::Sender<ExitStatus>>,
}

impl Watched {
    pub(crate) fn new(pid: i32, pidfd: Option<OwnedFd>, drained: Option<BoxFuture<'static, ()>>) -> Self {
        Self {
            pid,
            pidfd: pidfd.map(Arc::new),
            exit: Mutex::default(),
            drained: drained.map(FutureExt::shared),
        }
    }

    /// One that has ended, as somebody saw.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.lock().status
    }

    /// Tells all who wait.
    pub(crate) fn ended(&self, status: ExitStatus) {
        let mut exit = self.lock();
        exit.status = Some(status);
        for waiter in exit.waiters.drain(..) {
            let _ = waiter.send(status);
        }
    }

    /// Waits for the end.
    pub(crate) async fn wait_for_exit(&self) -> Option<ExitStatus> {
        let told = {
            let mut exit = self.lock();
            match exit.status {
                Some(status) => Ok(status),
                None => {
                    let (tell, told) = oneshot::channel();
                    // Those who gave up waiting leave nothing behind.
                    exit.waiters.retain(|w| !w.is_canceled());
                    exit.waiters.push(tell);
                    Err(told)
                }
            }
        };
        match told {
            Ok(status) => Some(status),
            Err(told) => told.await.ok(),
        }
    }

    /// Waits for the end on this thread, and reaps; `None` for one that had ended before this program knew of it.
    pub(crate) fn wait_here(&self) -> Option<ExitStatus> {
        if let Some(status) = self.status() {
            return Some(status);
        }
        let pidfd = self.pidfd.as_ref()?;
        crate::host::wait_for_end(pidfd);
        let status = exit_of_patiently(pidfd).unwrap_or_else(ExitStatus::unknown);
        self.ended(status);
        Some(status)
    }

    /// Waits for the end, and for the output.
    pub(crate) async fn wait(&self) -> Option<ExitStatus> {
        let status = self.wait_for_exit().await?;
        if let Some(drained) = self.drained.clone() {
            drained.await;
        }
        Some(status)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Exit> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The root directory of a process that a pidfd names: of the one that had the pid when the directory was opened.
pub(super) fn root_of(pid: i32, pidfd: impl AsFd) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::empty());
    // As long as it is not reaped, nobody else has its pid.
    let root = opened.and_then(|root| send_signal(pidfd, 0).map(|()| root));
    root.map_err(io_error(format!("open {path}")))
}
