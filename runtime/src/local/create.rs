use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use longshore_linux::send_signal;

use super::Shared;
use super::container::Container;
use super::process::Watched;
use super::record::{ProcessName, Record, StateDir};
use super::{hooks, start_socket};
use crate::host::{Inputs, Meeting, Session, io_error, wait_and_reap};
use crate::io::Streams;
use crate::plan::op::Slot;
use crate::plan::{PlanOptions, plan};
use crate::{CreateRequest, Drained, Result, Status};

const SIGKILL: i32 = 9;

/// A created container that nobody has been told of yet. Dropped, it is as if it had never been.
#[derive(Debug)]
#[must_use = "a container that is not committed is removed again"]
pub(super) struct Pending {
    container: Option<Arc<Container>>,
}

impl Pending {
    /// The container is the caller's.
    pub(super) fn commit(mut self) -> Arc<Container> {
        self.container
            .take()
            .expect("only commit takes it, and it takes the value")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(container) = self.container.take() else { return };
        if let Some(pidfd) = &container.init.pidfd {
            let _ = send_signal(pidfd, SIGKILL);
            wait_and_reap(pidfd);
        }
        let _ = container.dir.remove();
    }
}

/// Removes the state directory of a create that fails.
#[must_use = "dropped, it removes the directory"]
struct Claimed(Option<StateDir>);

impl Claimed {
    fn keep(mut self) -> StateDir {
        self.0.take().expect("only keep takes it, and it takes the value")
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take() {
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
    } = request;
    let bundle = std::path::absolute(&bundle).map_err(io_error(format!("find the bundle {}", bundle.display())))?;
    let mut options = PlanOptions::new(&bundle);
    options.rootfs = rootfs;
    options.lifetime = lifetime;
    let program = Arc::new(plan(&spec, &shared.facts, &options)?);

    let dir = StateDir::new(&shared.root, &id);
    dir.create()?;
    let claimed = Claimed(Some(dir.clone()));
    let (mut inputs, socket) = Inputs::open(&program)?;
    inputs.put(Slot::START, start_socket::listen_in(dir.path())?)?;
    let mut streams = Some(io.into_streams());
    let drained = streams.as_mut().and_then(|s| s.drained()).map(Drained::wait);
    if !program.terminal
        && let Some(streams) = streams.take()
    {
        inputs.put_streams(streams.open()?)?;
    }

    let spawned = shared.spawner.spawn(Arc::clone(&program), inputs, None)?;
    let steps = program.steps.len() as u32;
    let session = Session::new(program, socket, spawned);
    let mut record = Record {
        id: id.to_string(),
        init: ProcessName { pid: 0, start: 0 },
        owner: shared.own,
        lifetime,
        bundle,
        created: SystemTime::now(),
        steps,
        spec,
    };
    let session = until_created(shared, session, streams, &mut record, &dir)?;
    let pid = session.pid();
    session.go()?;
    let init = Watched::new(pid, Some(session.into_pidfd()), drained);
    let container = Arc::new(Container::new(id, claimed.keep(), record, init));
    let pending = Pending {
        container: Some(Arc::clone(&container)),
    };
    container.watch(&shared.reactor)?;
    Ok(pending)
}

/// Does what the child waits for, up to the record on disk.
fn until_created(
    shared: &Shared,
    mut session: Session,
    mut streams: Option<Box<dyn Streams>>,
    record: &mut Record,
    dir: &StateDir,
) -> Result<Session> {
    loop {
        match session.next(&shared.facts)? {
            Meeting::Terminal(master) => {
                if let Some(streams) = streams.take() {
                    streams.console(master)?;
                }
            }
            Meeting::Hooks => {
                record.init = ProcessName::of(session.pid())?;
                run_create_hooks(record, &record.bundle)?;
                session.go()?;
            }
            Meeting::Created => {
                dir.save(record)?;
                return Ok(session);
            }
        }
    }
}

fn run_create_hooks(record: &Record, bundle: &Path) -> Result<()> {
    let Some(hooks) = record.spec.hooks() else {
        return Ok(());
    };
    let state = Container::oci_state(record, Status::Creating);
    hooks::run("prestart", deprecated_prestart(hooks), bundle, &state)?;
    hooks::run("createRuntime", hooks.create_runtime().as_ref(), bundle, &state)
}

/// The specification deprecates them, and containers still have them.
#[allow(deprecated)]
fn deprecated_prestart(hooks: &oci_spec::runtime::Hooks) -> Option<&Vec<oci_spec::runtime::Hook>> {
    hooks.prestart().as_ref()
}
