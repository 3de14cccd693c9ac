//! Containers that are started again when they end.

mod check;
mod health;
mod launch;
mod need;
mod order;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use longshore_bundle::Bundle;
use longshore_events::EventKind;
use longshore_runtime::{CreateRequest, DeleteMode, ExitStatus, Io, Lifetime, Status};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use check::HealthCheck;
pub use health::{Health, HealthWatch};
use launch::{Plan, Step, take_all};
pub use need::Condition;
use policy::Backoff;
pub use policy::{RestartPolicy, Stopped};

use crate::create::blocking;
use crate::error::At;
use crate::senses::outcome_of;
use crate::{Container, Engine, ErrorKind, Result};

/// The fact on a container's record that says when it is started again.
pub(crate) const RESTART: &str = "longshore.restart";
/// The fact that says that somebody stopped it.
const STOPPED: &str = "longshore.stopped";

/// The status of a run that could not be started, as a shell has it.
const FAILED: u32 = 127;
/// How long a container has to end before it is killed, that somebody stopped while it was being restarted.
const GRACE: Duration = Duration::from_secs(10);

/// Makes the streams of the next run of a container of that id.
type MakeIo = Arc<dyn Fn(&str) -> Io + Send + Sync>;

/// A container that is started again whenever it ends as its [`RestartPolicy`] says. Dropping this ends the supervision and leaves the container as it is;
/// dropped in the middle of a restart, it leaves one that [`Container::restart`] starts again.
#[derive(Debug)]
#[must_use = "dropping it ends the supervision"]
pub struct Supervision {
    container: Container,
    restarts: watch::Receiver<u32>,
    task: JoinHandle<Result<ExitStatus>>,
}

impl Supervision {
    /// The container.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// How often it was started again so far.
    pub fn restarts(&self) -> u32 {
        *self.restarts.borrow()
    }

    /// Waits until it was started again so often, in all.
    ///
    /// # Errors
    /// `None` when the supervision ends before.
    pub async fn restarted(&mut self, times: u32) -> Option<u32> {
        let reached = self.restarts.wait_for(|restarts| *restarts >= times).await;
        reached.ok().map(|restarts| *restarts)
    }

    /// Waits for the end that no restart follows: its policy does not want one, or somebody [stopped](Container::stop) or deleted the container.
    ///
    /// # Errors
    /// Those of the last [`restart`](Container::restart), when that failed and no other follows.
    pub async fn ended(mut self) -> Result<ExitStatus> {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn policy_of(record: &longshore_metadata::Container) -> Result<RestartPolicy> {
    let policy = record.extensions.get(RESTART).and_then(serde_json::Value::as_str);
    policy.map_or(Ok(RestartPolicy::No), str::parse)
}

fn stopped_of(record: &longshore_metadata::Container) -> Stopped {
    match record.extensions.get(STOPPED).and_then(serde_json::Value::as_bool) {
        Some(true) => Stopped::Yes,
        _ => Stopped::No,
    }
}

impl Container {
    /// When it is started again.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when it does not exist; [`Invalid`](ErrorKind::Invalid) when its record says what is no policy.
    pub async fn restart_policy(&self) -> Result<RestartPolicy> {
        policy_of(&self.record().await?)
    }

    /// Sets when it is started again. A supervision looks at it when the container ends.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when it does not exist.
    pub async fn set_restart_policy(&self, policy: RestartPolicy) -> Result<()> {
        self.set_fact(RESTART, policy.to_string().into()).await
    }

    async fn set_fact(&self, name: &str, value: serde_json::Value) -> Result<()> {
        let change = |_: &mut _, record: &mut longshore_metadata::Container| {
            record.extensions.insert(name.to_owned(), value.clone());
        };
        let doing = format!("noting '{name}' of container '{}'", self.id());
        self.change(doing, change).await
    }

    async fn stopped(&self) -> Result<Stopped> {
        Ok(stopped_of(&self.record().await?))
    }

    /// Notes that somebody stops it, or that it is started again, if anything depends on that. Returns what was noted before.
    pub(crate) async fn note_stopped(&self, stopped: Stopped) -> Result<Stopped> {
        let record = self.record().await?;
        let before = stopped_of(&record);
        if record.extensions.contains_key(RESTART) && before != stopped {
            self.set_fact(STOPPED, (stopped == Stopped::Yes).into()).await?;
        }
        Ok(before)
    }

    /// Starts it again after it has ended, from its bundle and with the files that it left, its streams going to `io`. It gets a new init process, in new namespaces.
    ///
    /// When this fails, or the program is killed in the middle, the container is one that has ended: it may be restarted again, or deleted.
    ///
    /// # Errors
    /// [`FailedPrecondition`](ErrorKind::FailedPrecondition) unless it has ended; those of a create and a start.
    pub async fn restart(&self, io: Io) -> Result<()> {
        self.note_stopped(Stopped::No).await?;
        self.start_anew(io).await
    }

    async fn start_anew(&self, io: Io) -> Result<()> {
        let doing = || format!("restarting container '{}'", self.id());
        let record = self.record().await?;
        let tied = record
            .extensions
            .get(crate::recover::TIED)
            .and_then(serde_json::Value::as_bool);
        let lifetime = match tied {
            Some(true) => Lifetime::Tied,
            _ => Lifetime::Detached,
        };
        let directory = self.bundle_directory();
        let bundle = blocking(move || Bundle::load(directory)).await.at(doing())?;
        self.delete_task(DeleteMode::Stopped).await?;
        let mounts = self.mounts().await?;
        let directory = bundle.directory().to_owned();
        let request = CreateRequest::new(self.task().clone(), directory.clone(), bundle.into_spec(), io);
        let request = request.rootfs(mounts).lifetime(lifetime);
        // Its next run has another end.
        self.watches.forget_init();
        let state = self.engine.executor.create(request).await.at(doing())?;
        self.engine.emitter().emit(EventKind::TaskCreate {
            container_id: self.id().to_owned(),
            bundle: directory.to_string_lossy().into_owned(),
            pid: state.pid.unwrap_or_default(),
        });
        self.start().await
    }

    /// Starts it again, from now on, whenever it ends as its [`RestartPolicy`] says; each run gets streams that `io` makes. The wait before a restart is a tenth of a second and
    /// doubles each time up to a minute, until it has run for ten seconds. A restart that fails counts as a run that failed.
    ///
    /// A container that is not started yet is waited for; one that ended already is started again at once, if its policy says so.
    pub fn supervise(&self, io: impl Fn() -> Io + Send + Sync + 'static) -> Supervision {
        self.supervised(None, Arc::new(move |_: &str| io()))
    }

    fn supervised(&self, first: Option<Box<Step>>, io: MakeIo) -> Supervision {
        let (sender, restarts) = watch::channel(0);
        let container = self.clone();
        Supervision {
            container: self.clone(),
            restarts,
            task: tokio::spawn(async move { container.keep_running(first, &io, &sender).await }),
        }
    }

    async fn keep_running(
        &self,
        first: Option<Box<Step>>,
        io: &MakeIo,
        restarts: &watch::Sender<u32>,
    ) -> Result<ExitStatus> {
        let (mut backoff, mut begun) = (Backoff::default(), SystemTime::now());
        if let Some(step) = first {
            Box::pin(self.start_after_others(*step, io, &mut backoff)).await?;
            begun = SystemTime::now();
        }
        let mut ended = self.wait().await?;
        loop {
            let so_far = *restarts.borrow();
            let Some(policy) = Box::pin(self.policy_after(&ended, so_far)).await? else {
                return Ok(ended);
            };
            let ran = ended.at.duration_since(begun).unwrap_or_default();
            tokio::time::sleep(backoff.after(ran)).await;
            // Somebody may have stopped or deleted it meanwhile.
            if Box::pin(self.policy_after(&ended, so_far)).await?.is_none() {
                return Ok(ended);
            }
            begun = SystemTime::now();
            // Boxed, what is seldom done is no part of what every supervised container holds.
            let outcome = Box::pin(self.start_anew(io(self.id()))).await;
            restarts.send_modify(|restarts| *restarts += 1);
            self.engine.senses.metrics.restarted(outcome_of(&outcome));
            ended = match outcome {
                Ok(()) => Box::pin(self.run_to_its_end(ended)).await?,
                Err(_) if self.is_gone().await => return Ok(ended),
                Err(error) if !policy.restarts_after(&ExitStatus::now(FAILED), so_far + 1) => return Err(error),
                Err(error) => {
                    warn(self, &error, "a restart failed");
                    ExitStatus::now(FAILED)
                }
            };
        }
    }

    /// Starts it once what it needs is there; when that fails, again after a while, as its policy says.
    async fn start_after_others(&self, step: Step, io: &MakeIo, backoff: &mut Backoff) -> Result<()> {
        let (mut failures, mut outcome) = (0, step.take(&**io).await);
        while let Err(error) = outcome {
            let failed = ExitStatus::now(FAILED);
            if self.policy_after(&failed, failures).await?.is_none() {
                return Err(error);
            }
            warn(self, &error, "a start failed");
            failures += 1;
            tokio::time::sleep(backoff.after(Duration::ZERO)).await;
            if self.policy_after(&failed, failures - 1).await?.is_none() {
                return Err(error);
            }
            outcome = match self.engine.steps_to(&[self.id()]).await {
                Ok(steps) => take_all(steps, &**io).await,
                Err(error) => Err(error),
            };
        }
        Ok(())
    }

    /// The policy, if by it the container is started again.
    async fn policy_after(&self, ended: &ExitStatus, restarts: u32) -> Result<Option<RestartPolicy>> {
        let record = match self.record().await {
            // It was deleted.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            record => record?,
        };
        let policy = policy_of(&record)?;
        let wanted = stopped_of(&record) == Stopped::No && policy.restarts_after(ended, restarts);
        Ok(wanted.then_some(policy))
    }

    /// Waits for the end of a run; one that was deleted ended as the run `before` did.
    async fn run_to_its_end(&self, before: ExitStatus) -> Result<ExitStatus> {
        // Who stopped or deleted it while it was neither here nor there meant this run too.
        match self.stopped().await {
            Ok(Stopped::No) => {}
            Ok(Stopped::Yes) => drop(Box::pin(self.stop(self.stop_signal().await?, GRACE)).await?),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Box::pin(self.delete_task(DeleteMode::Force)).await?;
                return Ok(before);
            }
            Err(error) => return Err(error),
        }
        match self.wait().await {
            Err(_) if self.is_gone().await => Ok(before),
            outcome => outcome,
        }
    }

    async fn is_gone(&self) -> bool {
        matches!(self.record().await, Err(error) if error.kind() == ErrorKind::NotFound)
    }
}

/// What is to be done about a container that a new host finds.
enum Found {
    /// It is there, and its policy restarts it when it ends.
    Alive,
    /// It has ended, and its policy starts it again.
    ToStart,
    /// Nothing.
    Left,
}

const NOT_SUPERVISED: &str = "a container is not supervised";

impl Engine {
    /// Supervises every container of this namespace that has a restart policy, and starts those again that are found ended, as their policies say: after this
    /// program, or the machine, was started anew. `io` makes the streams of a container, by its id. One that can't be started is logged, and left.
    ///
    /// Those that [depend on](crate::ContainerBuilder::depends_on) others are started after these, by their supervisions, once what they need is met, and again after a growing wait when that
    /// fails; those that depend on nobody are started when this returns. What they need is started too, whatever its policy says, if it does not run; what
    /// was to be completed, and was, is not run again while the machine goes on. A restart while this program lives waits for nobody.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn supervise_all<F>(&self, io: F) -> Result<Vec<Supervision>>
    where
        F: Fn(&str) -> Io + Send + Sync + 'static,
    {
        let io: MakeIo = Arc::new(io);
        let (mut alive, mut plan) = (Vec::new(), Plan::new(self));
        for container in self.containers().await? {
            let found = match container.found().await {
                Ok(Found::ToStart) => plan.add(container.id()).await,
                Ok(Found::Alive) => {
                    alive.push(container.clone());
                    Ok(())
                }
                Ok(Found::Left) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = found {
                warn(&container, &error, NOT_SUPERVISED);
            }
        }
        let mut all = BTreeMap::new();
        for step in plan.steps() {
            let container = step.container().clone();
            step.mean().await?;
            // Who waits for nobody waits for no task either.
            let first = match step.is_free() {
                false => Some(Box::new(step)),
                true => match step.take(&*io).await {
                    Ok(()) => None,
                    Err(error) => {
                        warn(&container, &error, NOT_SUPERVISED);
                        continue;
                    }
                },
            };
            // One that is only needed, and by itself is not started again, has a supervision for as long as it is not started.
            if first.is_some() || container.restart_policy().await? != RestartPolicy::No {
                all.insert(container.id().to_owned(), container.supervised(first, io.clone()));
            }
        }
        for container in alive {
            all.entry(container.id().to_owned())
                .or_insert_with(|| container.supervised(None, io.clone()));
        }
        Ok(all.into_values().collect())
    }
}

fn warn(container: &Container, error: &crate::Error, what: &str) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(container = container.id(), error, "{what}");
}

impl Container {
    async fn found(&self) -> Result<Found> {
        let policy = self.restart_policy().await?;
        let ended = match self.state().await {
            Ok(state) if state.status != Status::Stopped => {
                return Ok(match policy {
                    RestartPolicy::No => Found::Left,
                    _ => Found::Alive,
                });
            }
            Ok(state) => state.exit,
            // The machine was started anew: what the executor knew is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(match policy.restarts_anew(self.stopped().await?, ended.as_ref()) {
            true => Found::ToStart,
            false => Found::Left,
        })
    }
}
