use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::super::group::{Group, failed};
use super::super::host::Kind;
use super::super::named::Member;
use super::Cgroup;
use crate::{Error, Result};

/// How long processes may take to freeze: one that waits for a disk may take long, one that hangs on a dead NFS server for ever.
const FREEZING: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Kills every process in the groups and the groups inside, also those that are forking meanwhile or frozen.
    ///
    /// It returns when the signals are sent; the processes are gone a little later.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if there are processes left that can't be killed.
    pub fn kill(&self) -> Result<()> {
        let Some(v2) = self.v2() else {
            return self.kill_by_signal();
        };
        match v2.write("cgroup.kill", "1") {
            Ok(()) => {}
            // Linux before 5.14, or a group that is gone.
            Err(Errno::NOENT | Errno::NODEV) => {
                if v2.has("cgroup.procs")? {
                    return self.kill_by_signal();
                }
            }
            Err(errno) => return Err(failed(&v2.path.join("cgroup.kill"), "write '1'", errno)),
        }
        // A process that was on its way into the groups when its parent died may be in those of v1 only.
        let Some(v1) = self.members.iter().find(|m| !m.is_v2()) else {
            return Ok(());
        };
        let (mut all, mut killed) = (BTreeSet::new(), BTreeSet::new());
        v1.group().collect_pids(&mut all)?;
        v2.collect_pids(&mut killed)?;
        self.signal_each(all.difference(&killed).copied(), Signal::KILL.as_raw())
    }

    /// Kills without a kill file: what is frozen can't fork away, so that one round is enough. If something can't be frozen,
    /// rounds follow until no new process is seen.
    fn kill_by_signal(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        loop {
            let frozen = self.freeze().is_ok();
            let pids: BTreeSet<u32> = self.pids()?.into_iter().collect();
            let signalled = self.signal_each(pids.iter().copied(), Signal::KILL.as_raw());
            if frozen {
                self.thaw()?;
            }
            if frozen || signalled.is_err() || pids.is_subset(&seen) {
                return signalled;
            }
            seen.extend(pids);
        }
    }

    /// Sends a signal to every process in the groups, none of which can fork away from it meanwhile.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let was_frozen = self.is_frozen()?;
        // Processes that can't be frozen get the signal as well.
        let _ = self.freeze();
        // While its group is frozen, nothing else can take over a pid.
        let result = self.pids().and_then(|pids| self.signal_each(pids, signal));
        let kills = signal == Signal::KILL.as_raw();
        if !was_frozen || kills {
            self.thaw()?;
        }
        result
    }

    fn signal_each(&self, pids: impl IntoIterator<Item = u32>, signal: i32) -> Result<()> {
        let mut result = Ok(());
        for pid in pids {
            match send(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => {
                    result = Err(Error::Io {
                        action: format!("send signal {signal} to process {pid} of the container"),
                        source: errno.into(),
                    });
                }
            }
        }
        result
    }

    /// Stops every process where it is, and returns when all have stopped.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without a group that can freeze; [`Io`](crate::ErrorKind::Io) when a
    /// process does not stop within ten seconds (then all go on).
    pub fn freeze(&self) -> Result<()> {
        let result = match self.freezer()? {
            Freezer::V2(group) => freeze_v2(group),
            Freezer::V1(group) => freeze_v1(group),
        };
        if result.is_err() {
            let _ = self.thaw();
        }
        result
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<()> {
        match self.freezer()? {
            Freezer::V2(group) => set(group, "cgroup.freeze", "0"),
            Freezer::V1(group) => set(group, "freezer.state", "THAWED"),
        }
    }

    /// Whether they are stopped.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn is_frozen(&self) -> Result<bool> {
        // Where v2 has no freezer it does not speak of it.
        let told = self
            .v2()
            .map(|v2| v2.figures("cgroup.events", |text| flag(text, "frozen")));
        if let Some(frozen) = told.transpose()?.flatten().flatten() {
            return Ok(frozen);
        }
        let Some(v1) = self.v1("freezer") else {
            return Ok(false);
        };
        Ok(v1.figures("freezer.state", |text| text.trim() == "FROZEN")? == Some(true))
    }

    fn v2(&self) -> Option<&Group> {
        self.members.iter().find(|m| m.is_v2()).map(Member::group)
    }

    fn freezer(&self) -> Result<Freezer<'_>> {
        if let Some(v2) = self.v2()
            && v2.has("cgroup.freeze")?
        {
            return Ok(Freezer::V2(v2));
        }
        let v1 = self
            .members
            .iter()
            .find(|m| m.serves(super::super::host::Home::V1, "freezer"));
        v1.map(|member| Freezer::V1(member.group()))
            .ok_or_else(|| Error::Unsupported {
                field: "linux.cgroupsPath".into(),
                reason: "the container has no group that can freeze its processes".into(),
            })
    }
}

impl Group {
    /// Whether processes that enter are frozen.
    pub(in super::super) fn freezes(&self, kind: &Kind) -> Result<bool> {
        let (file, moving) = match kind {
            Kind::V2 => ("cgroup.freeze", "0"),
            Kind::V1 { controllers, .. } if controllers.contains("freezer") => ("freezer.state", "THAWED"),
            Kind::V1 { .. } => return Ok(false),
        };
        Ok(self.read(file)?.is_some_and(|state| state.trim() != moving))
    }
}

#[derive(Debug)]
enum Freezer<'a> {
    V1(&'a Group),
    V2(&'a Group),
}

fn send(pid: u32, signal: i32) -> Result<(), Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    // Besides naming the process for good, it takes every number of a signal.
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    longshore_linux::send_signal(process, signal)
}

fn set(group: &Group, file: &str, value: &str) -> Result<()> {
    match group.write(file, value) {
        // The group is gone, and with it its processes.
        Ok(()) | Err(Errno::NODEV | Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(&group.path.join(file), format!("write '{value}'"), errno)),
    }
}

/// A flag of `cgroup.events`.
fn flag(events: &str, name: &str) -> Option<bool> {
    let value = events.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim() == "1")
}

/// Waits until `cgroup.events` says `flag value`; the kernel wakes poll(2) at each change.
pub(super) fn wait_for_event(group: &Group, flag: &str, wanted: bool, most: Duration) -> Result<bool> {
    let path = || group.path.join("cgroup.events");
    let events = match group.open("cgroup.events", OFlags::RDONLY) {
        Ok(events) => events,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(!wanted),
        Err(errno) => return Err(failed(&path(), "open", errno)),
    };
    let end = Instant::now() + most;
    loop {
        // Only a read re-arms the wakeup.
        let mut text = [0; 256];
        let length = match rustix::io::pread(&events, &mut text, 0) {
            Ok(length) => length,
            Err(Errno::NODEV) => return Ok(!wanted),
            Err(errno) => return Err(failed(&path(), "read", errno)),
        };
        let text = String::from_utf8_lossy(&text[..length]);
        let value = self::flag(&text, flag);
        let left = end.saturating_duration_since(Instant::now());
        if value.unwrap_or(false) == wanted || left.is_zero() {
            return Ok(value.unwrap_or(false) == wanted);
        }
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(
            &mut [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)],
            Some(&timeout),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(&path(), "wait for a change", errno)),
        }
    }
}

fn freeze_v2(group: &Group) -> Result<()> {
    set(group, "cgroup.freeze", "1")?;
    // An empty group is never called frozen by some kernels.
    if wait_for_event(group, "frozen", true, Duration::ZERO)? || group.is_unused()? {
        return Ok(());
    }
    if wait_for_event(group, "frozen", true, FREEZING)? {
        return Ok(());
    }
    Err(stubborn(group))
}

fn freeze_v1(group: &Group) -> Result<()> {
    let end = Instant::now() + FREEZING;
    let mut tries = 0u32;
    while Instant::now() < end {
        // Writing again lets the kernel catch processes that were born meanwhile.
        set(group, "freezer.state", "FROZEN")?;
        match group.read("freezer.state")? {
            Some(state) if state.trim() == "FREEZING" => {}
            _ => return Ok(()),
        }
        tries += 1;
        if tries.is_multiple_of(50) {
            // A process that waits for one that is frozen keeps the rest from freezing; let all move.
            set(group, "freezer.state", "THAWED")?;
        }
        std::thread::sleep(Duration::from_micros(100 * u64::from(tries.min(50))));
    }
    Err(stubborn(group))
}

fn stubborn(group: &Group) -> Error {
    let action = "freeze: a process did not stop in ten seconds (it may wait for a device or a server)";
    failed(&group.path, action, Errno::TIMEDOUT)
}
