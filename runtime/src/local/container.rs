use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_linux::{has_ended, send_signal};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::facts::{Brief, Facts};
use super::process::Watched;
use super::reactor::Reactor;
use super::record::{ProcessName, Record, StateDir, Written};
use super::start_socket;
use crate::cgroup::{Cgroup, Manager, Names};
use crate::{ContainerId, Error, ExitStatus, Result, State, Status};

const SIGKILL: i32 = 9;

/// A container that this program knows.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) dir: StateDir,
    pub(crate) facts: Facts,
    /// The whole record, until it runs.
    record: Mutex<Option<Arc<Record>>>,
    pub(crate) init: Arc<Watched>,
    /// The process that records how init ends, while it lives.
    pub(crate) monitor: Option<Arc<OwnedFd>>,
    groups: Arc<Mutex<Groups>>,
    pub(crate) execs: Mutex<HashMap<String, Arc<Watched>>>,
    /// Calls on one container take turns.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    watching: AtomicBool,
    /// Whether init was seen not to wait for its start any more.
    started: AtomicBool,
}

/// The groups, and the record that names them: another program may have given the container more.
#[derive(Debug)]
struct Groups {
    names: Names,
    written: Option<Written>,
}

/// The groups, to do something to them.
fn wake(groups: &Mutex<Groups>) -> Cgroup {
    groups.lock().unwrap_or_else(PoisonError::into_inner).names.wake()
}

impl Container {
    /// Its init process comes with its monitor, if it has one that lives.
    fn new(
        id: ContainerId,
        dir: StateDir,
        facts: Facts,
        (init, monitor): (Watched, Option<OwnedFd>),
        names: Names,
    ) -> Self {
        let groups = Groups {
            names,
            written: dir.written(),
        };
        Self {
            id,
            dir,
            facts,
            record: Mutex::default(),
            init: Arc::new(init),
            monitor: monitor.map(Arc::new),
            groups: Arc::new(Mutex::new(groups)),
            execs: Mutex::default(),
            turn: Arc::default(),
            watching: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }
    }

    /// One that was just made.
    pub(crate) fn made(
        id: ContainerId,
        dir: StateDir,
        record: Record,
        processes: (Watched, Option<OwnedFd>),
        names: Names,
    ) -> Self {
        let mut container = Self::new(id, dir, Facts::of(&record), processes, names);
        container.record = Mutex::new(Some(Arc::new(record)));
        container
    }

    /// One that the state directory knows: made by another program, or by this one before it was restarted.
    pub(crate) fn load(id: &ContainerId, dir: StateDir, record: Brief, cgroups: &Manager) -> Result<Self> {
        let init = Watched::new(record.init.pid, alive(record.init), None);
        // One that is gone has recorded what it knew: the look at the record comes after that at its writer.
        let monitor = record.monitor.and_then(alive);
        let names = cgroups.names(&record.cgroups);
        if let Some(exit) = dir.load_exit()? {
            init.ended(exit.in_group(&names.wake()));
        }
        Ok(Self::new(
            id.clone(),
            dir,
            Facts::of_brief(record),
            (init, monitor),
            names,
        ))
    }

    /// Its record, with the spec, which is read again once it runs.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if it is gone; [`Corrupt`](crate::ErrorKind::Corrupt).
    pub(crate) fn record(&self) -> Result<Arc<Record>> {
        let kept = self.kept().clone();
        match kept {
            Some(record) => Ok(record),
            None => {
                let record = self.dir.load()?;
                record.map(Arc::new).ok_or_else(|| Error::NotFound(self.id.to_string()))
            }
        }
    }

    /// Keeps the record in mind no longer.
    pub(crate) fn let_go_of_record(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Arc<Record>>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its groups, to do something to them.
    pub(crate) fn cgroup(&self) -> Cgroup {
        wake(&self.groups)
    }

    /// Whether it has any.
    pub(crate) fn has_groups(&self) -> bool {
        !self.groups().names.is_none()
    }

    /// Sees whether another program has given it more groups.
    pub(crate) fn refresh(&self, cgroups: &Manager) -> Result<()> {
        let written = self.dir.written();
        let mut groups = self.groups();
        if groups.written != written {
            if let Some(record) = self.dir.load()? {
                groups.names = cgroups.names(&record.cgroups);
            }
            groups.written = written;
        }
        Ok(())
    }

    /// Gives it other groups; they must be in its record already.
    pub(crate) fn regroup(&self, cgroup: Cgroup) {
        let mut groups = self.groups();
        groups.names = cgroup.rest();
        groups.written = self.dir.written();
    }

    /// Sees to it that the end of init is noticed and recorded.
    pub(crate) fn watch(&self, reactor: Option<&Reactor>) -> Result<()> {
        let Some(reactor) = reactor.filter(|_| self.monitor.is_some() || self.init.pidfd.is_some()) else {
            return Ok(());
        };
        if self.watching.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (pidfd, monitor) = (self.init.pidfd.clone(), self.monitor.clone());
        let (init, dir, groups) = (Arc::clone(&self.init), self.dir.clone(), Arc::clone(&self.groups));
        let on_exit = move |exit: Option<ExitStatus>| {
            // Whoever made the container knows better, if this program can't know.
            let recorded = || dir.load_exit().ok().flatten();
            let exit = exit.or_else(recorded).unwrap_or_else(ExitStatus::unknown);
            let exit = exit.in_group(&wake(&groups));
            // The directory may be gone already; those who wait are told anyway.
            let _ = dir.save_exit(exit);
            init.ended(exit);
        };
        let Some(monitor) = monitor else {
            return pidfd.map_or(Ok(()), |pidfd| reactor.watch(pidfd, on_exit));
        };
        let (init, dir, groups) = (Arc::clone(&self.init), self.dir.clone(), Arc::clone(&self.groups));
        reactor.watch_end(monitor, move || match (dir.load_exit().ok().flatten(), pidfd) {
            (Some(exit), _) => {
                init.ended(exit.in_group(&wake(&groups)));
                None
            }
            // Somebody killed it. What it would have told is left to whoever else sees it.
            (None, Some(pidfd)) => Some((pidfd, Box::new(on_exit))),
            (None, None) => {
                on_exit(None);
                None
            }
        })
    }

    /// Whether this program learns of the end of init by itself.
    pub(crate) fn is_watched(&self) -> bool {
        self.watching.load(Ordering::Acquire)
    }

    /// The record of init's end, as soon as nobody writes it any more. Blocks.
    fn recorded(&self) -> Option<ExitStatus> {
        crate::host::wait_for_end(self.monitor.as_ref()?);
        let exit = self.dir.load_exit().ok().flatten()?.in_group(&self.cgroup());
        self.init.ended(exit);
        Some(exit)
    }

    /// Kills all of it, frozen or not, and waits for the end of init. Blocks.
    pub(crate) fn kill_and_wait(&self) {
        if self.has_groups() {
            let _ = self.cgroup().kill();
        }
        if let Some(pidfd) = &self.init.pidfd {
            let _ = send_signal(pidfd, SIGKILL);
        }
        self.wait_until_recorded();
    }

    /// Waits for the end of init, and for its record if this program makes one. Blocks.
    pub(crate) fn wait_until_recorded(&self) {
        if self.is_watched() {
            futures::executor::block_on(self.init.wait_for_exit());
        } else if let (None, Some(pidfd)) = (self.recorded(), &self.init.pidfd) {
            // Whose end is another's to learn, or who is a stranger, is not reaped here.
            crate::host::wait_for_end(pidfd);
        }
    }

    /// Waits for the end of init on this thread, and records it. Blocks.
    pub(crate) fn wait_here(&self) -> Option<ExitStatus> {
        let known = self.init.status().is_some() || self.recorded().is_some();
        let mut exit = self.init.wait_here()?;
        if !known {
            exit = exit.in_group(&self.cgroup());
            let _ = self.dir.save_exit(exit);
            self.init.ended(exit);
        }
        Some(exit)
    }

    /// Where it is in its life, by what the kernel says.
    pub(crate) fn status(&self) -> Status {
        if !self.lives() {
            Status::Stopped
        } else if self.is_frozen() {
            Status::Paused
        } else if self.awaits_start() {
            Status::Created
        } else {
            Status::Running
        }
    }

    fn lives(&self) -> bool {
        self.init.status().is_none() && self.init.pidfd.as_ref().is_some_and(|fd| !has_ended(fd))
    }

    /// Whether init waits for its start. One that does not, never does again.
    fn awaits_start(&self) -> bool {
        if self.started.load(Ordering::Acquire) {
            return false;
        }
        let awaits = start_socket::is_awaited_in(self.dir.path());
        if !awaits {
            self.started.store(true, Ordering::Release);
        }
        awaits
    }

    fn is_frozen(&self) -> bool {
        self.has_groups() && self.cgroup().is_frozen().unwrap_or(false)
    }

    /// Whether a start signal would be seen; whether somebody waits for one is not asked, which would wake him.
    pub(crate) fn may_be_started(&self) -> bool {
        self.lives() && !self.is_frozen()
    }

    pub(crate) fn state(&self) -> State {
        self.state_of(self.status())
    }

    /// The state, as of a status that is known.
    pub(crate) fn state_of(&self, status: Status) -> State {
        State {
            id: self.id.clone(),
            status,
            pid: (status != Status::Stopped).then_some(self.init.pid as u32),
            bundle: self.facts.bundle.clone(),
            annotations: self.facts.annotations.iter().cloned().collect(),
            created: self.facts.created,
            exit: self.exit_in(status),
        }
    }

    /// How init ended, if somebody saw it: this program, or the monitor, which may have nobody here who waits for it.
    fn exit_in(&self, status: Status) -> Option<ExitStatus> {
        let recorded = || Some(self.dir.load_exit().ok()??.in_group(&self.cgroup()));
        let known = self.init.status();
        let may_be_recorded = self.facts.monitored && status == Status::Stopped;
        known.or_else(|| may_be_recorded.then(recorded).flatten())
    }

    /// The state as hooks and agents get it (runtime spec, "State").
    pub(crate) fn oci_state(record: &Record, status: Status) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": record.spec.version(),
            "id": record.id,
            "status": status,
            "bundle": record.bundle,
        });
        if status != Status::Stopped {
            state["pid"] = record.init.pid.into();
        }
        if let Some(annotations) = record.spec.annotations().as_ref().filter(|a| !a.is_empty()) {
            state["annotations"] = serde_json::json!(annotations);
        }
        state
    }

    pub(crate) fn execs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Watched>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process, if it still is what it is called and has not ended.
fn alive(name: ProcessName) -> Option<OwnedFd> {
    // The pidfd first, then the look whose it is: a pid that is reused in between is noticed.
    let pidfd = Pid::from_raw(name.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    pidfd.filter(|fd| name.lives() && !has_ended(fd))
}
