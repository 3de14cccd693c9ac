use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::control::Cgroup;
use super::group::{Group, failed};
use super::named::{Member, Name};
use crate::Result;

/// What is done when a wait fails.
const WAIT: &str = "wait for the want of memory";

/// What [`OomWatch::next`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OomNews {
    /// The container has run out of the memory that it may have, once or more often.
    OutOfMemory,
    /// It has ended; nothing more will come.
    Ended,
    /// Nothing until the time was over.
    Nothing,
}

/// Tells when a container runs out of memory. It holds some descriptors and no thread.
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    /// Of the container's init process.
    init: Option<OwnedFd>,
}

#[derive(Debug)]
enum Source {
    /// An eventfd that the kernel counts up: cgroup-v1/memory.rst, section 10.
    V1 { counter: Arc<OwnedFd>, group: Name },
    /// `memory.events`, which wakes poll(2), and the kills that were told: cgroup-v2.rst, "Memory Interface Files".
    V2 {
        events: Arc<OwnedFd>,
        told: u64,
        path: PathBuf,
    },
    /// No group counts its memory.
    None,
}

impl Cgroup {
    /// Watches for the container's running out of memory, from now on. With the pidfd of its init process, the end of that is told as well.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) and [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn watch_oom(&self, init: Option<OwnedFd>) -> Result<OomWatch> {
        let source = if let Some(v1) = self.v1_member("memory") {
            of_v1(v1)?
        } else if let Some(v2) = self.v2_with("memory.events")? {
            let told = self.oom_kills()?;
            let events = Arc::new(open(v2, "memory.events", OFlags::RDONLY)?);
            Source::V2 {
                events,
                told,
                path: v2.path.clone(),
            }
        } else {
            Source::None
        };
        Ok(OomWatch { source, init })
    }
}

fn open(group: &Group, file: &str, flags: OFlags) -> Result<OwnedFd> {
    let opened = group.open(file, flags);
    opened.map_err(|errno| failed(&group.path.join(file), "open", errno))
}

fn of_v1(member: &Member) -> Result<Source> {
    let group = member.group();
    let fault = |errno| failed(&group.path, "watch for the want of memory", errno);
    let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(fault)?;
    let control = open(group, "memory.oom_control", OFlags::RDONLY)?;
    let line = format!("{} {}", counter.as_raw_fd(), control.as_raw_fd());
    group.write("cgroup.event_control", &line).map_err(fault)?;
    Ok(Source::V1 {
        counter: Arc::new(counter),
        group: member.name.clone(),
    })
}

impl OomWatch {
    /// The same for async code: an item each time that the container has run out of memory, once or more often, and the end when it has ended. What cannot be read
    /// any more ends it too, with a warning to [`tracing`].
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn into_stream(mut self) -> Result<BoxStream<'static, ()>> {
        let init = self.init.take().map(|init| registered(init, Interest::READABLE));
        let init = init.transpose().map_err(crate::host::io_error(WAIT))?;
        self.until(init.map_or(End::Never, End::Seen))
    }

    /// The same for one of whose end somebody else tells.
    pub(crate) fn into_stream_until(self, end: BoxFuture<'static, ()>) -> Result<BoxStream<'static, ()>> {
        self.until(End::Told(end))
    }

    fn until(self, end: End) -> Result<BoxStream<'static, ()>> {
        let wake = self.source.wakes().map(|(fd, interest)| registered(fd, interest));
        let waits = Waits {
            wake: wake.transpose().map_err(crate::host::io_error(WAIT))?,
            source: self.source,
            end,
        };
        Ok(stream::unfold(waits, Waits::next).boxed())
    }

    /// Waits for what comes next, no longer than `most`. Blocks.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn next(&mut self, most: Duration) -> Result<OomNews> {
        let end = Instant::now().checked_add(most);
        loop {
            if let Some(news) = self.source.look()? {
                return Ok(news);
            }
            if self.init.as_ref().is_some_and(longshore_linux::has_ended) {
                return Ok(OomNews::Ended);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(OomNews::Nothing);
            }
            self.wait(left)?;
        }
    }

    fn wait(&self, left: Option<Duration>) -> Result<()> {
        let init = self.init.iter().map(|fd| (fd.as_fd(), PollFlags::IN));
        let mut waits: Vec<PollFd<'_>> = init
            .chain(self.source.wait_for())
            .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags))
            .collect();
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(crate::host::io_error(WAIT)(errno)),
        }
    }
}

/// The safe constructor is deprecated for types that might hand out a descriptor which is not theirs; these own theirs for as long as they are registered.
#[allow(deprecated)]
fn registered<T: AsRawFd>(fd: T, interest: Interest) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}

/// An [`OomWatch`] that a tokio runtime wakes.
struct Waits {
    source: Source,
    wake: Option<AsyncFd<Arc<OwnedFd>>>,
    end: End,
}

/// How the end of the container is learnt.
enum End {
    /// It is not.
    Never,
    /// By the pidfd of its init process.
    Seen(AsyncFd<OwnedFd>),
    /// From somebody who has seen it.
    Told(BoxFuture<'static, ()>),
    /// It is known.
    Known,
}

impl End {
    fn is_here(&mut self) -> bool {
        match self {
            Self::Never => return false,
            Self::Seen(init) => return longshore_linux::has_ended(init),
            Self::Known => return true,
            Self::Told(told) => match told.now_or_never() {
                Some(()) => *self = Self::Known,
                None => return false,
            },
        }
        true
    }

    async fn wait(&mut self) {
        match self {
            Self::Never => std::future::pending().await,
            Self::Seen(init) => ready(Some(init), Interest::READABLE).await,
            Self::Told(told) => {
                told.await;
                *self = Self::Known;
            }
            Self::Known => {}
        }
    }
}

impl Waits {
    async fn next(mut self) -> Option<((), Self)> {
        loop {
            // In this order, so that what came before the end is told before it.
            let ended = self.end.is_here();
            match self.source.look() {
                Ok(Some(OomNews::OutOfMemory)) => return Some(((), self)),
                Ok(None) if !ended => self.wait().await,
                Ok(_) => return None,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "nobody watches any more whether a container runs out of memory");
                    return None;
                }
            }
        }
    }

    async fn wait(&mut self) {
        let interest = self.source.wakes().map(|(_, interest)| interest);
        let source = ready(self.wake.as_ref(), interest.unwrap_or(Interest::READABLE));
        let ended = self.end.wait();
        futures::pin_mut!(source, ended);
        futures::future::select(source, ended).await;
    }
}

/// Waits for a descriptor; one that is not there is never ready. After an error of the runtime's it is looked at again, as after news.
async fn ready<T: AsRawFd>(fd: Option<&AsyncFd<T>>, interest: Interest) {
    match fd {
        Some(fd) => match fd.ready(interest).await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => tokio::task::yield_now().await,
        },
        None => std::future::pending().await,
    }
}

impl Source {
    fn wakes(&self) -> Option<(Arc<OwnedFd>, Interest)> {
        match self {
            Self::V1 { counter, .. } => Some((Arc::clone(counter), Interest::READABLE)),
            Self::V2 { events, .. } => Some((Arc::clone(events), Interest::PRIORITY)),
            Self::None => None,
        }
    }

    fn wait_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::V1 { counter, .. } => Some((counter.as_fd(), PollFlags::IN)),
            Self::V2 { events, .. } => Some((events.as_fd(), PollFlags::PRI)),
            Self::None => None,
        }
    }

    fn look(&mut self) -> Result<Option<OomNews>> {
        match self {
            Self::None => Ok(None),
            Self::V1 { counter, group } => match rustix::io::read(&*counter, &mut [0; 8]) {
                // The removal of a group is told the same way.
                Ok(_) if !group.open().has("cgroup.event_control")? => Ok(Some(OomNews::Ended)),
                Ok(_) => Ok(Some(OomNews::OutOfMemory)),
                Err(Errno::AGAIN | Errno::INTR) => Ok(None),
                Err(errno) => {
                    let action = "read the eventfd of memory.oom_control";
                    Err(failed(&group.open().path, action, errno))
                }
            },
            Self::V2 { events, told, path } => {
                // Only a read re-arms the wakeup.
                let mut text = [0; 512];
                let length = match rustix::io::pread(&*events, &mut text, 0) {
                    Ok(length) => length,
                    Err(Errno::NODEV) => return Ok(Some(OomNews::Ended)),
                    Err(errno) => return Err(failed(&path.join("memory.events"), "read", errno)),
                };
                let kills = super::stats::oom_kills_in(&String::from_utf8_lossy(&text[..length]));
                let news = kills > *told;
                *told = kills;
                Ok(news.then_some(OomNews::OutOfMemory))
            }
        }
    }
}
