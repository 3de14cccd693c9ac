use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_linux::{Exit, reap};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

use crate::host::io_error;
use crate::{ExitStatus, Result};

type OnExit = Box<dyn FnOnce(Option<ExitStatus>) + Send>;

/// What is done when a process has ended.
enum Then {
    /// How it ended is asked for, more than once if need be.
    Tell(OnExit),
    /// That it ended is all.
    Go(Box<dyn FnOnce() + Send>),
}

/// The one thread that waits for the ends of processes, by their pidfds: no signal handler, and no child of the host's is
/// touched. It ends when the reactor is dropped and the last process that it watches has ended.
pub(crate) struct Reactor {
    shared: Arc<Shared>,
}

struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    next: u64,
    processes: HashMap<u64, (Arc<OwnedFd>, Then)>,
    closing: bool,
}

/// The key of the wake-up descriptor.
const WAKE: u64 = 0;

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io_error("make an epoll instance"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC).map_err(io_error("make an eventfd"))?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)
            .map_err(io_error("watch an eventfd"))?;
        let watched = Mutex::new(Watched {
            next: WAKE + 1,
            ..Watched::default()
        });
        let shared = Arc::new(Shared { epoll, wake, watched });
        let served = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("longshore-wait".into())
            .spawn(move || serve(&served))
            .map_err(io_error("start the thread that waits for processes"))?;
        Ok(Self { shared })
    }

    /// Calls `on_exit`, on the reactor's thread, when the process ends, also when it has ended already.
    pub(crate) fn watch(
        &self,
        pidfd: Arc<OwnedFd>,
        on_exit: impl FnOnce(Option<ExitStatus>) + Send + 'static,
    ) -> Result<()> {
        self.shared.watch(pidfd, Then::Tell(Box::new(on_exit)))
    }

    /// Calls `on_end`, on the reactor's thread, when the process ends, however that is. It may hand another to be watched.
    pub(crate) fn watch_end(
        &self,
        pidfd: Arc<OwnedFd>,
        on_end: impl FnOnce() -> Option<(Arc<OwnedFd>, OnExit)> + Send + 'static,
    ) -> Result<()> {
        let shared = Arc::downgrade(&self.shared);
        let go = move || {
            if let Some((pidfd, on_exit)) = on_end()
                && let Some(shared) = shared.upgrade()
            {
                let _ = shared.watch(pidfd, Then::Tell(on_exit));
            }
        };
        self.shared.watch(pidfd, Then::Go(Box::new(go)))
    }
}

impl Shared {
    fn watch(&self, pidfd: Arc<OwnedFd>, then: Then) -> Result<()> {
        let mut watched = self.lock();
        let key = watched.next;
        watched.next += 1;
        epoll::add(
            &self.epoll,
            &pidfd,
            epoll::EventData::new_u64(key),
            epoll::EventFlags::IN,
        )
        .map_err(io_error("watch a process"))?;
        watched.processes.insert(key, (pidfd, then));
        Ok(())
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often, and after which pause, somebody asks again how a child of another program ended: the kernel tells when its parent has
/// reaped it, which takes that a moment.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(4);

/// A child of another program that has ended, nobody can tell yet how.
struct Unknown {
    pidfd: Arc<OwnedFd>,
    on_exit: OnExit,
    tries: u32,
}

impl Unknown {
    /// Tells, if it is known by now or no longer hoped for; else it is asked again.
    fn settle(mut self) -> Option<Self> {
        let exit = exit_of(&self.pidfd);
        self.tries += 1;
        if exit.is_none() && self.tries < TRIES {
            return Some(self);
        }
        (self.on_exit)(exit);
        None
    }
}

fn serve(shared: &Shared) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
    let mut unknown: Vec<Unknown> = Vec::new();
    let pause = Timespec::try_from(PAUSE).ok();
    loop {
        events.clear();
        let timeout = pause.as_ref().filter(|_| !unknown.is_empty());
        match epoll::wait(&shared.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        for event in &events {
            let key = event.data.u64();
            if key == WAKE {
                let _ = rustix::io::read(&shared.wake, &mut [0u8; 8]);
            } else {
                unknown.extend(ended(shared, key));
            }
        }
        unknown = unknown.into_iter().filter_map(Unknown::settle).collect();
        let watched = shared.lock();
        if watched.closing && watched.processes.is_empty() && unknown.is_empty() {
            return;
        }
    }
}

fn ended(shared: &Shared, key: u64) -> Option<Unknown> {
    let (pidfd, then) = shared.lock().processes.remove(&key)?;
    let _ = epoll::delete(&shared.epoll, pidfd.as_fd());
    match then {
        Then::Tell(on_exit) => {
            let tries = 0;
            Some(Unknown { pidfd, on_exit, tries })
        }
        Then::Go(on_end) => {
            // It is this program's child, or another's to reap.
            let _ = reap(&pidfd);
            on_end();
            None
        }
    }
}

/// Reaps a process that has ended; `None` while nobody can tell how.
fn exit_of(pidfd: impl AsFd) -> Option<ExitStatus> {
    match reap(pidfd) {
        Ok(Exit::Unknown) | Err(_) => None,
        Ok(exit) => exit.shell_code().map(ExitStatus::now),
    }
}

/// The same for one who has nothing else to wait for.
pub(super) fn exit_of_patiently(pidfd: impl AsFd) -> Option<ExitStatus> {
    for _ in 0..TRIES {
        match exit_of(&pidfd) {
            None => std::thread::sleep(PAUSE),
            exit => return exit,
        }
    }
    None
}
