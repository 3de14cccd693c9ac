use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use oci_spec::runtime::Spec;

use super::container::Container;
use super::outlet::{Outlet, leave_streams};
use super::process::Watched;
use super::record::{Claim, ProcessName, Record, START_SOCKET, StateDir};
use super::{Shared, hooks, start_socket};
use crate::cgroup::{Cgroup, Limits, Unit};
use crate::host::{Inputs, Meeting, Monitored, Order, Session, io_error, wait_and_reap};
use crate::io::Streams;
use crate::plan::op::Slot;
use crate::plan::{PlanOptions, plan};
use crate::{ContainerId, CreateRequest, Drained, Error, Io, Lifetime, Reaper, Result, resctrl};

/// A created container that nobody has been told of yet. Dropped, it is as if it had never been.
#[derive(Debug)]
#[must_use = "a container that is not committed is removed again"]
pub(super) struct Pending {
    container: Option<Arc<Container>>,
}

impl Pending {
    pub(super) fn new(container: &Arc<Container>) -> Self {
        Self {
            container: Some(Arc::clone(container)),
        }
    }

    /// The container is the caller's.
    pub(super) fn commit(mut self) -> Arc<Container> {
        self.container
            .take()
            .expect("only commit takes it, and it takes the value")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            container.kill_and_wait();
            if let Some(pidfd) = &container.init.pidfd {
                // Nothing to reap if the reactor did.
                wait_and_reap(pidfd);
            }
            if let Some(monitor) = &container.monitor {
                wait_and_reap(monitor);
            }
            let _ = container.cgroup().remove();
            if let Some(group) = &container.facts.resctrl {
                let _ = group.remove();
            }
            let record = container.record();
            let _ = container.dir.remove();
            if let Ok(record) = record {
                hooks::run_poststop(&record);
            }
        }
    }
}

/// What a create that fails has to take back: groups first, then the directory that says that there may be groups.
#[derive(Debug, Default)]
#[must_use = "dropped, it removes what was made"]
pub(super) struct Made {
    dir: Option<StateDir>,
    cgroup: Option<Cgroup>,
    resctrl: Option<resctrl::Group>,
    /// What keeps a scope alive until the container is in it.
    #[cfg(feature = "systemd")]
    placeholder: Option<crate::host::Placeholder>,
}

impl Made {
    pub(super) fn parts(&self) -> (&StateDir, &Cgroup) {
        let kept = "only keep takes them, and it takes the value";
        (self.dir.as_ref().expect(kept), self.cgroup.as_ref().expect(kept))
    }

    #[cfg(feature = "systemd")]
    fn start_unit(
        &mut self,
        shared: &Shared,
        id: &ContainerId,
        spec: &Spec,
        limits: &Limits,
        unit: &Unit,
    ) -> Result<()> {
        let placeholder = self.placeholder.insert(crate::host::Placeholder::new()?);
        let order = crate::cgroup::systemd::Order {
            id,
            unit,
            resources: spec.linux().as_ref().and_then(|l| l.resources().as_ref()),
            annotations: spec.annotations().as_ref(),
            owner: crate::cgroup::owner(spec),
            pid: placeholder.pid,
        };
        self.cgroup = Some(shared.cgroups.create_unit(order, limits)?);
        Ok(())
    }

    #[cfg(not(feature = "systemd"))]
    fn start_unit(&mut self, _: &Shared, _: &ContainerId, _: &Spec, _: &Limits, unit: &Unit) -> Result<()> {
        Err(Error::Unsupported {
            field: "linux.cgroupsPath".into(),
            reason: format!("this build can't ask systemd for {}", unit.name),
        })
    }

    /// The container's group of the resctrl filesystem, if it is to have one.
    pub(super) fn resctrl(&self) -> Option<resctrl::Group> {
        self.resctrl.clone()
    }

    pub(super) fn keep(mut self) -> (StateDir, Cgroup) {
        let kept = "only keep takes them, and it takes the value";
        self.resctrl = None;
        (self.dir.take().expect(kept), self.cgroup.take().expect(kept))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
        if let Some(group) = self.resctrl.take() {
            let _ = group.remove();
        }
        if let Some(dir) = self.dir.take() {
            let _ = dir.remove();
        }
    }
}

/// Creates a container. Blocks.
pub(super) fn create(shared: &Shared, request: CreateRequest) -> Result<Pending> {
    let CreateRequest {
        id,
        bundle,
        spec,
        rootfs,
        io,
        lifetime,
        descriptors,
        keyring,
        reaper,
        root_entry,
    } = request;
    let bundle = std::path::absolute(&bundle).map_err(io_error(format!("find the bundle {}", bundle.display())))?;
    let mut options = PlanOptions::new(&bundle);
    options.rootfs = rootfs;
    options.lifetime = lifetime;
    options.filters = shared.filters.clone();
    options.descriptors = descriptors.len();
    options.root_entry = root_entry;
    options.keyring = keyring.name(id.as_str());
    let program = Arc::new(plan(&spec, &shared.facts, &options)?);
    tell(&id, program.warnings());
    let limits = limits(shared, &spec)?;

    let made = claim(shared, &id, &spec, &limits, lifetime)?;
    let (dir, cgroup) = made.parts();
    let (mut inputs, socket) = Inputs::open(&program, &cgroup.location())?;
    inputs.put_descriptors(&program, descriptors)?;
    inputs.put(Slot::START, start_socket::listen_in(dir.path(), START_SOCKET)?)?;
    let monitored = lifetime == Lifetime::Detached && reaper == Reaper::Executor;
    let (outlet, drained) = match io.log_file().filter(|_| monitored) {
        Some(log) => (
            Outlet::Monitor(leave_streams(&log, program.terminal, dir.path(), &mut inputs)?),
            None,
        ),
        None => {
            let (streams, drained) = open_streams(io, program.terminal, &mut inputs)?;
            (Outlet::Host(streams), drained)
        }
    };
    let entry = cgroup.entry()?;
    inputs.put_tasks(entry.tasks)?;

    let steps = program.steps.len() as u32;
    let (outlet, log) = outlet.split();
    let monitored = match monitored {
        true => Some(Monitored {
            directory: dir.open()?,
            log,
        }),
        false => None,
    };
    let spawned = shared.spawner.spawn(Order {
        program: Arc::clone(&program),
        inputs,
        groups: entry.unified.into_iter().collect(),
        monitored,
    })?;
    let session = Session::new(program, socket, spawned);
    let mut record = Record {
        id: id.to_string(),
        init: ProcessName { pid: 0, start: 0 },
        lifetime,
        bundle,
        created: SystemTime::now(),
        cgroups: cgroup.location(),
        steps,
        monitor: None,
        spec,
        keyring,
        resctrl: made.resctrl(),
    };
    let mut session = match until_created(shared, session, outlet, &mut record, cgroup) {
        Ok(session) => session,
        Err(error) => {
            drop(made);
            // Runtime spec, "Lifecycle", steps 3 to 5: a hook that fails leads to the end of the life, poststop hooks included.
            if matches!(error, Error::Hook { .. }) {
                hooks::run_poststop(&record);
            }
            return Err(error);
        }
    };
    cgroup.confine_devices(&limits)?;
    record.monitor = session.monitor_pid().map(ProcessName::of).transpose()?;
    if session.is_monitored() {
        dir.prepare(&record)?;
        session.settle()?;
    } else {
        dir.save(&record)?;
        session.go()?;
    }
    if lifetime == Lifetime::Detached {
        // This program may end as soon as it is told; by then the child no longer dies with it.
        session.until_let_go()?;
    }
    let monitor = session.take_monitor();
    let init = Watched::new(session.pid(), Some(session.into_pidfd()), drained.map(Drained::wait));
    let (dir, cgroup) = made.keep();
    let container = Arc::new(Container::made(id, dir, record, (init, monitor), cgroup.rest()));
    let pending = Pending::new(&container);
    if reaper != Reaper::Heir {
        container.watch(shared.reactor.as_ref())?;
    }
    Ok(pending)
}

/// Logs what is not as the spec has it.
pub(super) fn tell(id: &ContainerId, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(container = %id, "{warning}");
    }
}

/// The limits of a container. One that sees cgroups is in every hierarchy, or it would see the groups of others there.
pub(super) fn limits(shared: &Shared, spec: &Spec) -> Result<Limits> {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let limits = Limits::compile(resources, shared.cgroups.host())?;
    let mut mounts = spec.mounts().iter().flatten();
    let sees_groups = mounts.any(|mount| mount.typ().as_deref().is_some_and(|typ| typ == "cgroup"));
    Ok(if sees_groups { limits.everywhere() } else { limits })
}

/// Takes the id and makes the groups.
pub(super) fn claim(
    shared: &Shared,
    id: &ContainerId,
    spec: &Spec,
    limits: &Limits,
    lifetime: Lifetime,
) -> Result<Made> {
    let cgroups_path = spec.linux().as_ref().and_then(|l| l.cgroups_path().clone());
    #[cfg(feature = "systemd")]
    let unit = shared.cgroups.unit(id, cgroups_path.as_deref())?;
    #[cfg(not(feature = "systemd"))]
    let unit = None;
    let group = resctrl::Group::of(spec, id, shared.facts.resctrl.as_deref())?;
    let dir = StateDir::new(&shared.root, id);
    dir.claim(&Claim {
        owner: shared.own,
        lifetime,
        cgroups_path: cgroups_path.clone(),
        unit: unit.clone(),
        resctrl: group.clone(),
    })?;
    let mut made = Made::default();
    made.dir = Some(dir);
    if let Some(unit) = unit {
        made.start_unit(shared, id, spec, limits, &unit)?;
    } else {
        made.cgroup = Some(shared.cgroups.create(id, cgroups_path.as_deref(), limits)?);
    }
    let wanted = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    if let Some((group, wanted)) = group.zip(wanted) {
        made.resctrl.insert(group).make(wanted)?;
    }
    Ok(made)
}

/// Streams that wait for a terminal, if there are any, and what tells that all output has arrived.
pub(super) type Waiting = (Option<Box<dyn Streams>>, Option<Drained>);

/// Opens the streams of a process, unless they wait for a terminal that the child makes.
pub(super) fn open_streams(io: Io, terminal: bool, inputs: &mut Inputs) -> Result<Waiting> {
    let mut streams = io.into_streams();
    let drained = streams.drained();
    if terminal {
        return Ok((Some(streams), drained));
    }
    inputs.put_streams(streams.open()?)?;
    Ok((None, drained))
}

/// Hands a terminal to the streams that wait for it.
pub(super) fn connect(streams: &mut Option<Box<dyn Streams>>, master: OwnedFd) -> Result<()> {
    streams.take().map_or(Ok(()), |streams| streams.console(master))
}

/// Does what the child waits for, up to its last step before the start.
fn until_created(
    shared: &Shared,
    mut session: Session,
    mut outlet: Outlet<()>,
    record: &mut Record,
    cgroup: &Cgroup,
) -> Result<Session> {
    loop {
        match session.next(&shared.facts)? {
            Meeting::Terminal(master) => match &mut outlet {
                Outlet::Host(streams) => connect(streams, master)?,
                Outlet::Monitor(()) => session.leave_terminal(&master)?,
            },
            Meeting::Hooks => {
                record.init = ProcessName::of(session.pid())?;
                hooks::run_create(hooks::Inside {
                    shared,
                    record,
                    cgroup,
                    init: session.pidfd(),
                })?;
                session.go()?;
            }
            Meeting::Created => {
                record.init = ProcessName::of(session.pid())?;
                if let Some(group) = &record.resctrl {
                    group.join(session.pid())?;
                }
                return Ok(session);
            }
            // They come after the start.
            Meeting::Agent | Meeting::Listener(..) | Meeting::Gone => return Err(session.out_of_turn()),
        }
    }
}
