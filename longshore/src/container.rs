use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_events::EventKind;
use longshore_linux::Mount;
use longshore_metadata::{Batch, Key, Record, Value};
use longshore_runtime::{
    Attachment, ContainerId, DeleteMode, ExecRequest, ExitStatus, KillScope, State, Stats, Status,
};

use crate::create::{STOP_SIGNAL, blocking};
use crate::error::At;
use crate::exit::Watches;
use crate::senses::outcome_of;
use crate::supervise::Stopped;
use crate::{Engine, Error, Result};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// A container of an [`Engine`]. A handle: dropping it changes nothing, cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Container {
    pub(crate) engine: Arc<Engine>,
    id: ContainerId,
    /// What the executor, which knows nothing of namespaces, calls it.
    task: ContainerId,
    pub(crate) watches: Watches,
}

impl Container {
    pub(crate) fn new(engine: impl Into<Arc<Engine>>, id: ContainerId) -> Result<Self> {
        let engine = engine.into();
        let task = engine.task_id(&id)?;
        Ok(Self {
            engine,
            id,
            task,
            watches: Watches::default(),
        })
    }

    pub(crate) fn container_id(&self) -> &ContainerId {
        &self.id
    }

    pub(crate) fn task(&self) -> &ContainerId {
        &self.task
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// What the engine remembers of it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn record(&self) -> Result<longshore_metadata::Container> {
        let key = Key::container(&self.engine.namespace, self.id.as_str());
        match self
            .engine
            .metadata
            .get(&key)
            .await
            .at(format!("looking up container '{}'", self.id))?
        {
            Some(Record {
                value: Value::Container(container),
                ..
            }) => Ok(*container),
            _ => Err(Error::NoSuchContainer(self.id.to_string())),
        }
    }

    /// What its root filesystem is made of.
    pub(crate) async fn mounts(&self) -> Result<Vec<Mount>> {
        let snapshot = self.engine.snapshot_key(&self.id);
        let doing = format!("looking at the root filesystem of container '{}'", self.id);
        self.engine.snapshotter.mounts(&snapshot).await.at(doing)
    }

    pub(crate) fn bundle_directory(&self) -> PathBuf {
        self.engine.bundle_directory(&self.id)
    }

    /// Starts it, waits for its end and deletes it. Deletes it also when the start fails.
    ///
    /// # Errors
    /// [`Start`](crate::ErrorKind::Start) when its program can't be executed.
    pub async fn run(self) -> Result<ExitStatus> {
        if let Err(error) = self.start().await {
            // The start's error is the one to tell; the next open of the engine cleans up what this can't.
            let _ = self.delete(DeleteMode::Force).await;
            return Err(error);
        }
        let status = self.wait().await?;
        self.delete(DeleteMode::Stopped).await?;
        Ok(status)
    }

    /// Runs its program.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless it was just created; [`Start`](crate::ErrorKind::Start) when its program can't be executed.
    pub async fn start(&self) -> Result<()> {
        let outcome = self.start_it().await;
        self.engine.asked("start", self.id(), outcome)
    }

    async fn start_it(&self) -> Result<()> {
        let state = self.state().await?;
        let out_of_memory = self.out_of_memory().await;
        let begun = Instant::now();
        let result = self.engine.executor.start(&self.task).await;
        self.engine.senses.metrics.started(outcome_of(&result), begun.elapsed());
        result.at(format!("starting container '{}'", self.id))?;
        let pid = state.pid.unwrap_or_default();
        self.engine.emitter().emit(EventKind::TaskStart {
            container_id: self.id.to_string(),
            pid,
        });
        self.watch_init(pid, out_of_memory);
        Ok(())
    }

    /// Runs another process in it and returns its pid; [`wait_exec`](Self::wait_exec) waits for its end.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless it runs.
    pub async fn exec(&self, request: ExecRequest) -> Result<u32> {
        let exec_id = request.exec_id.clone();
        let emitter = self.engine.emitter();
        emitter.emit(EventKind::TaskExecAdded {
            container_id: self.id.to_string(),
            exec_id: exec_id.clone(),
        });
        let doing = format!("running another process in container '{}'", self.id);
        let begun = Instant::now();
        let outcome = self.engine.executor.exec(&self.task, request).await;
        self.engine
            .senses
            .metrics
            .executed(outcome_of(&outcome), begun.elapsed());
        let pid = self.engine.asked("exec", self.id(), outcome.at(doing))?;
        emitter.emit(EventKind::TaskExecStarted {
            container_id: self.id.to_string(),
            exec_id: exec_id.clone(),
            pid,
        });
        self.watch_exec(&exec_id, pid);
        Ok(pid)
    }

    /// Sends a signal, by number, to its init process.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it has stopped.
    pub async fn kill(&self, signal: i32) -> Result<()> {
        self.signal(signal, KillScope::Init).await
    }

    async fn signal(&self, signal: i32, scope: KillScope) -> Result<()> {
        let doing = format!("sending signal {signal} to container '{}'", self.id);
        let outcome = self.engine.executor.kill(&self.task, signal, scope).await.at(doing);
        self.engine
            .asked_quietly(&format!("signal {signal}"), self.id(), outcome)
    }

    /// Stops it: `signal` first, SIGKILL to all its processes after `grace`. Returns how it ended. No restart policy starts it again then.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist. That it has stopped already is no error.
    pub async fn stop(&self, signal: i32, grace: Duration) -> Result<ExitStatus> {
        let outcome = self.stop_it(signal, grace).await;
        self.engine.asked("stop", self.id(), outcome)
    }

    async fn stop_it(&self, signal: i32, grace: Duration) -> Result<ExitStatus> {
        self.note_stopped(Stopped::Yes).await?;
        if self.state().await?.status == Status::Stopped {
            return self.wait().await;
        }
        match self.kill(signal).await {
            // It ended in between.
            Err(error) if error.kind() == crate::ErrorKind::FailedPrecondition => return self.wait().await,
            outcome => outcome?,
        }
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        match self.signal(SIGKILL, KillScope::All).await {
            Err(error) if error.kind() != crate::ErrorKind::FailedPrecondition => Err(error),
            _ => self.wait().await,
        }
    }

    /// The signal by which it wants to be stopped: what its image says, or SIGTERM.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn stop_signal(&self) -> Result<i32> {
        let record = self.record().await?;
        let signal = record.extensions.get(STOP_SIGNAL).and_then(serde_json::Value::as_i64);
        Ok(signal.and_then(|signal| i32::try_from(signal).ok()).unwrap_or(SIGTERM))
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless it runs.
    pub async fn pause(&self) -> Result<()> {
        let outcome = self.engine.executor.pause(&self.task).await;
        let outcome = outcome.at(format!("pausing container '{}'", self.id));
        self.engine.asked("pause", self.id(), outcome)?;
        self.engine.emitter().emit(EventKind::TaskPaused {
            container_id: self.id.to_string(),
        });
        Ok(())
    }

    /// Thaws them.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless it is paused.
    pub async fn resume(&self) -> Result<()> {
        let outcome = self.engine.executor.resume(&self.task).await;
        let outcome = outcome.at(format!("resuming container '{}'", self.id));
        self.engine.asked("resume", self.id(), outcome)?;
        self.engine.emitter().emit(EventKind::TaskResumed {
            container_id: self.id.to_string(),
        });
        Ok(())
    }

    /// What is known of it now.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn state(&self) -> Result<State> {
        self.engine
            .executor
            .state(&self.task)
            .await
            .at(format!("looking at container '{}'", self.id))
    }

    /// What it uses.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it has stopped.
    pub async fn stats(&self) -> Result<Stats> {
        self.engine
            .executor
            .stats(&self.task)
            .await
            .at(format!("reading the figures of container '{}'", self.id))
    }

    /// Attaches to it while it runs: what it says from now on, and input for it where it takes any ([`Io::log_with_input`](crate::Io::log_with_input)). For detached
    /// containers whose output goes into a [log](crate::Io::log); whoever made it need not live. Several may be attached, none of whom it waits for.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it has stopped; [`Unsupported`](crate::ErrorKind::Unsupported) for others.
    pub async fn attach(&self) -> Result<Attachment> {
        self.engine
            .executor
            .attach(&self.task)
            .await
            .at(format!("attaching to container '{}'", self.id))
    }

    /// Its processes, in the host's PID namespace.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn processes(&self) -> Result<Vec<u32>> {
        self.engine
            .executor
            .processes(&self.task)
            .await
            .at(format!("listing the processes of container '{}'", self.id))
    }

    /// Removes it: its cgroup, its writable snapshot, its bundle and its record. What of it is gone already is no error, so that a
    /// deletion that was interrupted can be repeated.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it has not stopped and `mode` does not force it.
    pub async fn delete(&self, mode: DeleteMode) -> Result<()> {
        let outcome = self.delete_it(mode).await;
        self.engine.asked("delete", self.id(), outcome)
    }

    async fn delete_it(&self, mode: DeleteMode) -> Result<()> {
        // Nobody starts it again in between.
        let before = self.note_stopped(Stopped::Yes).await;
        if let Err(error) = self.delete_task(mode).await {
            if let Ok(before) = before {
                self.note_stopped(before).await?;
            }
            return Err(error);
        }
        self.forget().await
    }

    /// Removes what the executor has of it, if it has any.
    pub(crate) async fn delete_task(&self, mode: DeleteMode) -> Result<()> {
        let before = self.engine.executor.state(&self.task).await.ok();
        match self.engine.executor.delete(&self.task, mode).await {
            Err(error) if error.kind() == longshore_runtime::ErrorKind::NotFound => return Ok(()),
            outcome => outcome.at(format!("deleting container '{}'", self.id))?,
        }
        let exit = before.as_ref().and_then(|state| state.exit);
        self.engine.emitter().emit(EventKind::TaskDelete {
            container_id: self.id.to_string(),
            pid: before.as_ref().and_then(|state| state.pid).unwrap_or_default(),
            exit_status: exit.map_or(0, |exit| exit.code),
            exited_at: exit.map_or_else(std::time::SystemTime::now, |exit| exit.at),
        });
        Ok(())
    }

    /// Removes all of it but what the executor has.
    pub(crate) async fn forget(&self) -> Result<()> {
        let doing = || format!("deleting container '{}'", self.id);
        self.remove_bundle().await?;
        let snapshot = self.engine.snapshot_key(&self.id);
        match self.engine.snapshotter().remove(&snapshot).await {
            Err(error) if error.kind() != longshore_snapshot::ErrorKind::NotFound => return Err(error).at(doing()),
            _ => {}
        }
        let batch = Batch::new().delete(Key::container(&self.engine.namespace, self.id.as_str()));
        match self.engine.metadata.apply(batch).await {
            Err(error) if error.kind() != longshore_metadata::ErrorKind::NotFound => Err(error).at(doing()),
            Err(_) => Ok(()),
            Ok(_) => {
                let id = self.id.to_string();
                self.engine.emitter().emit(EventKind::ContainerDelete { id });
                Ok(())
            }
        }
    }

    async fn remove_bundle(&self) -> Result<()> {
        let path = self.bundle_directory();
        let directory = path.clone();
        match blocking(move || std::fs::remove_dir_all(directory)).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
                doing: "removing the bundle",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }
}
