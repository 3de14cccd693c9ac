//! `create`, `run`, `start`, `kill`, `delete`, `pause` and `resume`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use longshore_runtime::seccomp::{self, Arch};
use longshore_runtime::{
    ContainerId, CreateRequest, DeleteMode, Error as RuntimeError, Executor, Keyring, KillScope, Lifetime,
    LinuxExecutor, ProcessId, RootEntry, Status,
};
use oci_spec::runtime::Spec;

use crate::args::Arguments;
use crate::attend::{Connection, Presence};
use crate::failure::{Failure, Outcome, in_runcs_words, path_error, start_error};
use crate::global::{Global, container_id};
use crate::notify::{MainPid, Notify};
use crate::{block_on, capabilities, given, notify};

/// `longshore-runc create`
pub(crate) fn create(global: &Global, arguments: &Arguments) -> Outcome {
    bring_up(global, arguments, Mode::Create).map_err(|failure| failure.of_command("runc create failed", 1))
}

/// `longshore-runc run`
pub(crate) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let presence = if arguments.is_on("detach") {
        Presence::Detached
    } else {
        Presence::Foreground
    };
    bring_up(global, arguments, Mode::Run(presence)).map_err(|failure| failure.of_command("runc run failed", 1))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Run(Presence),
}

fn bring_up(global: &Global, arguments: &Arguments, mode: Mode) -> Outcome {
    let (bundle, mut spec) = load_bundle(global, arguments.filled("bundle"))?;
    log_filter(global, &spec);
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    crate::resources::warn_of_kernel_memory(global, resources);
    let id = container_id(arguments.id())?;
    let presence = match mode {
        Mode::Create => Presence::Detached,
        Mode::Run(presence) => presence,
    };
    let mut connection = Connection::new(arguments, presence)?;
    if let Mode::Run(presence) = mode {
        become_reaper(arguments, presence)?;
    }
    let process = spec
        .process_mut()
        .as_mut()
        .context("process property must not be empty")?;
    let given = given::for_container(arguments, process)?;
    let program = process.args().as_ref().and_then(|args| args.first()).cloned();
    let io = connection.io(process.terminal().unwrap_or(false))?;
    block_on(async {
        let executor = global.executor()?;
        let notify = Notify::from_environment(global.root(), &id);
        notify.as_ref().map_or(Ok(()), |notify| notify.prepare(&mut spec))?;
        let request = CreateRequest::new(id.clone(), bundle, spec, io)
            .lifetime(Lifetime::Detached)
            .descriptors(given)
            .keyring(keyring(arguments))
            .reaper(presence.reaper())
            .root_entry(if arguments.is_on("no-pivot") {
                RootEntry::Move
            } else {
                RootEntry::Pivot
            });
        let told = |error| start_error(error, program.as_deref());
        let state = executor.create(request).await.map_err(told)?;
        let follow = FollowThrough {
            connection,
            notify,
            mode,
        };
        let started = follow.run(global, &executor, &id, state.pid, &told).await;
        if started.is_err() || (mode == Mode::Run(Presence::Foreground) && !arguments.is_on("keep")) {
            clean_up(global, &executor, &id).await;
        }
        started
    })
}

/// What runc says of a seccomp filter, in its words.
fn log_filter(global: &Global, spec: &Spec) {
    let profile = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let Some((profile, native)) = profile.zip(Arch::native()) else {
        return;
    };
    if !global.log.is_verbose() {
        return;
    }
    // A profile that can't be compiled is refused by the container's creation.
    let Ok(filter) = seccomp::compile(profile, native) else {
        return;
    };
    for name in filter.unknown.iter() {
        global.log.debug(|| format!("unknown seccomp syscall {name:?} ignored"));
    }
    global.log.debug(|| format!("seccomp filter flags: {}", filter.flags));
}

/// Whose session keyring the container has.
fn keyring(arguments: &Arguments) -> Keyring {
    if arguments.is_on("no-new-keyring") {
        Keyring::Inherited
    } else {
        Keyring::Own
    }
}

/// From the created container to the end of the command.
struct FollowThrough {
    connection: Connection,
    notify: Option<Notify>,
    mode: Mode,
}

impl FollowThrough {
    async fn run(
        self,
        global: &Global,
        executor: &LinuxExecutor,
        id: &ContainerId,
        pid: Option<u32>,
        told: &(impl Fn(RuntimeError) -> anyhow::Error + Sync),
    ) -> Outcome {
        let pid = pid.context("the container's process ended while it was created")?;
        self.connection.announce(pid)?;
        let Mode::Run(presence) = self.mode else {
            return Ok(0);
        };
        let notify = self.notify.map(Notify::bind).transpose()?.flatten();
        executor.start(id).await.map_err(told)?;
        match notify {
            Some(notify) if presence == Presence::Detached => notify.pass_on(pid, MainPid::Tell)?,
            Some(notify) => {
                let log = global.log.try_clone()?;
                std::thread::spawn(move || {
                    if let Err(error) = notify.pass_on(pid, MainPid::Keep) {
                        log.warn(&crate::failure::text(&error));
                    }
                });
            }
            None => {}
        }
        let process = (id, &ProcessId::Init);
        Ok(self.connection.attend(executor, process, pid, &global.log).await?)
    }
}

/// A command that stays adopts what the container leaves behind, unless it is told not to.
pub(crate) fn become_reaper(arguments: &Arguments, presence: Presence) -> anyhow::Result<()> {
    if presence == Presence::Foreground && !arguments.is_on("no-subreaper") {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).context("become the reaper of orphans")?;
    }
    Ok(())
}

/// Removes a container that the command made. Its failure is worth a line, not the exit code.
pub(crate) async fn clean_up(global: &Global, executor: &LinuxExecutor, id: &ContainerId) {
    match executor.delete(id, DeleteMode::Force).await {
        // A hook that failed has ended its life already.
        Ok(()) | Err(RuntimeError::NotFound(_)) => {}
        Err(error) => global.log.warn(&crate::failure::text(&error.into())),
    }
    notify::remove(global.root(), id);
}

/// The bundle's directory, absolute, and its spec.
pub(crate) fn load_bundle(global: &Global, bundle: Option<&str>) -> anyhow::Result<(PathBuf, Spec)> {
    let directory = match bundle {
        None => std::env::current_dir().context("find the working directory")?,
        Some(bundle) => {
            let bundle = Path::new(bundle);
            let found = std::fs::canonicalize(bundle).and_then(|path| {
                if path.is_dir() {
                    Ok(path)
                } else {
                    Err(rustix::io::Errno::NOTDIR.into())
                }
            });
            found.map_err(|error| path_error("chdir", bundle, &error))?
        }
    };
    match longshore_bundle::Bundle::load(&directory) {
        Ok(bundle) => Ok((directory, bundle.into_spec())),
        Err(error) if error.kind() == longshore_bundle::ErrorKind::NotFound => {
            bail!("JSON specification file config.json not found")
        }
        Err(error) => match read_again(&directory.join("config.json"), global) {
            Some(spec) => Ok((directory, spec)),
            None => Err(in_runcs_words(error.into())),
        },
    }
}

/// The spec with names as they are read here, and without the capabilities that have no name here, which runc warns of and leaves
/// out. None if that is not what is wrong.
fn read_again(path: &Path, global: &Global) -> Option<Spec> {
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let process = config.get_mut("process")?;
    respell_scheduler(process);
    let unknown = process
        .get_mut("capabilities")
        .map(capabilities::remove_unknown)
        .unwrap_or_default();
    let spec = longshore_bundle::parse_spec(path, config.to_string().as_bytes()).ok()?;
    if !unknown.is_empty() {
        global.log.warn(&capabilities::warning(&unknown));
    }
    Some(spec)
}

/// Gives a scheduler's flag the name that is read here: the specification's own has one part more.
pub(crate) fn respell_scheduler(process: &mut serde_json::Value) {
    let flags = process
        .pointer_mut("/scheduler/flags")
        .and_then(|flags| flags.as_array_mut());
    for flag in flags.into_iter().flatten() {
        if flag == "SCHED_FLAG_RESET_ON_FORK" {
            *flag = "SCHED_RESET_ON_FORK".into();
        }
    }
}

/// `longshore-runc start`
pub(crate) fn start(global: &Global, arguments: &Arguments) -> Outcome {
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        let notify = Notify::from_environment(global.root(), &id);
        let status = executor.state(&id).await?.status;
        let notify = notify
            .filter(|_| status == Status::Created)
            .map(Notify::bind)
            .transpose()?
            .flatten();
        let spec = executor.spec(&id)?;
        let args = spec.process().as_ref().and_then(|process| process.args().as_ref());
        let program = args.and_then(|args| args.first()).map(String::as_str);
        executor.start(&id).await.map_err(|error| start_error(error, program))?;
        if let (Some(notify), Some(pid)) = (notify, executor.state(&id).await?.pid) {
            notify.pass_on(pid, MainPid::Tell)?;
        }
        Ok(0)
    })
}

/// `longshore-runc kill`
pub(crate) fn kill(global: &Global, arguments: &Arguments) -> Outcome {
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        let name = arguments.rest().get(1).map_or("SIGTERM", String::as_str);
        let signal = signal_number(name).ok_or_else(|| Failure::new(format!("unknown signal \"{name}\"")))?;
        let scope = if arguments.is_on("all") {
            KillScope::All
        } else {
            KillScope::Init
        };
        match executor.kill(&id, signal, scope).await {
            // runc promises that nothing is left to be signalled, and so it is.
            Err(RuntimeError::WrongStatus { .. }) if scope == KillScope::All => Ok(0),
            killed => killed.map(|()| 0).map_err(Into::into),
        }
    })
}

/// A signal by number or name, with or without `SIG`, in any case.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (0..=64).contains(&number).then_some(number);
    }
    longshore_bundle::signal_number(name).ok()
}

/// `longshore-runc delete`
pub(crate) fn delete(global: &Global, arguments: &Arguments) -> Outcome {
    let force = arguments.is_on("force");
    block_on(async {
        let deleted = async {
            let (executor, id) = global.executor_of(arguments.id())?;
            let status = executor.state(&id).await?.status;
            // One that waits for its start has done nothing that could be lost.
            let mode = if force || status == Status::Created {
                DeleteMode::Force
            } else {
                DeleteMode::Stopped
            };
            executor.delete(&id, mode).await?;
            notify::remove(global.root(), &id);
            Ok(())
        };
        match deleted.await {
            Err::<(), anyhow::Error>(error) if force && is_not_found(&error) => Ok(0),
            deleted => Ok(deleted.map(|()| 0)?),
        }
    })
}

fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RuntimeError::NotFound(_)))
}

/// `longshore-runc pause`
pub(crate) fn pause(global: &Global, arguments: &Arguments) -> Outcome {
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        executor.pause(&id).await?;
        Ok(0)
    })
}

/// `longshore-runc resume`
pub(crate) fn resume(global: &Global, arguments: &Arguments) -> Outcome {
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        executor.resume(&id).await?;
        Ok(0)
    })
}
