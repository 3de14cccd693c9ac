//! Waiting for processes to end, and telling the world when they do, whoever else waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use longshore_events::EventKind;
use longshore_runtime::{ExitStatus, ProcessId};
use tokio::sync::watch;

use crate::error::At;
use crate::observe::Emitter;
use crate::{Container, Result};

/// Becomes the status of a process when it ends.
type Watch = watch::Receiver<Option<ExitStatus>>;

/// The processes of a container that this program started, each watched by a task. The container's own has no name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches(Arc<Mutex<HashMap<Option<String>, Watch>>>);

impl Watches {
    fn get(&self, name: Option<&str>) -> Option<Watch> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.get(&name.map(str::to_owned)).cloned()
    }

    /// Its next run has another end.
    pub(crate) fn forget_init(&self) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.remove(&None);
    }

    fn add(&self, name: Option<&str>, receiver: Watch) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are told by the executor, for as long as it knows of them.
        watches.retain(|_, watch| watch.borrow().is_none());
        watches.insert(name.map(str::to_owned), receiver);
    }
}

fn process_id(name: Option<&str>) -> ProcessId {
    name.map_or(ProcessId::Init, |name| ProcessId::Exec(name.to_owned()))
}

impl Container {
    /// Waits for the end of its program. All of its output has reached its [`Io`](crate::Io) by then. Any number of callers may wait.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn wait(&self) -> Result<ExitStatus> {
        self.exit().await
    }

    /// The same as a future that holds nothing of the engine: a program that waits for long can drop the engine, so that another opens its root.
    pub fn exit(&self) -> BoxFuture<'static, Result<ExitStatus>> {
        self.exit_of(None)
    }

    /// Waits for the end of a process that [`exec`](Self::exec) made.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such process.
    pub async fn wait_exec(&self, exec_id: &str) -> Result<ExitStatus> {
        self.exec_exit(exec_id).await
    }

    /// The same as a future that holds nothing of the engine.
    pub fn exec_exit(&self, exec_id: &str) -> BoxFuture<'static, Result<ExitStatus>> {
        self.exit_of(Some(exec_id))
    }

    fn exit_of(&self, name: Option<&str>) -> BoxFuture<'static, Result<ExitStatus>> {
        let (watch, process) = (self.watches.get(name), process_id(name));
        let (executor, task) = (self.engine.executor.clone(), self.task().clone());
        let doing = match name {
            None => format!("waiting for container '{}'", self.id()),
            Some(name) => format!("waiting for process '{name}' of container '{}'", self.id()),
        };
        async move {
            // The event is told before the status is.
            if let Some(mut watch) = watch
                && let Ok(status) = watch.wait_for(Option::is_some).await.map(|status| *status)
                && let Some(status) = status
            {
                return Ok(status);
            }
            executor.wait(&task, &process).await.at(doing)
        }
        .boxed()
    }

    /// Word of its want of memory from now on. Where nobody can tell, there is none, and all else goes on.
    pub(crate) async fn out_of_memory(&self) -> BoxStream<'static, ()> {
        match self.engine.executor.out_of_memory(self.task()).await {
            Ok(told) => told,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(container = self.id(), error, "its want of memory can't be watched");
                futures::stream::empty().boxed()
            }
        }
    }

    /// Tells the world when the container runs out of memory and when its program ends, whoever else waits for it.
    pub(crate) fn watch_init(&self, pid: u32, out_of_memory: BoxStream<'static, ()>) {
        // Nothing else of the engine is held: another may open its root while they run.
        let (emitter, container_id) = (Arc::new(self.engine.emitter()), self.id().to_owned());
        let teller = Arc::clone(&emitter);
        let told = out_of_memory.for_each(move |()| {
            let container_id = container_id.clone();
            teller.emit(EventKind::TaskOom { container_id });
            std::future::ready(())
        });
        self.watch_exit((None, pid), emitter, told.boxed());
    }

    /// Tells the world when a process that was made by an exec ends, whoever else waits for it.
    pub(crate) fn watch_exec(&self, name: &str, pid: u32) {
        let emitter = Arc::new(self.engine.emitter());
        self.watch_exit((Some(name), pid), emitter, std::future::ready(()).boxed());
    }

    /// Tells the end of a process after `before`.
    fn watch_exit(&self, (name, pid): (Option<&str>, u32), emitter: Arc<Emitter>, before: BoxFuture<'static, ()>) {
        let (sender, receiver) = watch::channel(None);
        self.watches.add(name, receiver);
        let (executor, task, process) = (self.engine.executor.clone(), self.task().clone(), process_id(name));
        let container_id = self.id().to_owned();
        let id = name.map_or_else(|| container_id.clone(), str::to_owned);
        tokio::spawn(async move {
            // When the wait fails the sender is dropped, and who waits asks for the error itself.
            let (status, ()) = futures::future::join(executor.wait(&task, &process), before).await;
            let Ok(status) = status else { return };
            emitter.emit(EventKind::TaskExit {
                container_id,
                id,
                pid,
                exit_status: status.code,
                exited_at: status.at,
            });
            // Nobody may be listening any more, which is fine.
            let _ = sender.send(Some(status));
        });
    }
}
