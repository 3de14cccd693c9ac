//! Where this program's images and containers are, and opening the engine there.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use longshore::distribution::Hosts;
use longshore::events::{EventSink, Journal, JournalOptions};
use longshore::runtime::{ContainerId, Executor, LinuxExecutor, LogFile};
use longshore::{DEFAULT_NAMESPACE, Engine, ErrorKind, Event, EventKind};
use longshore_examples::quickstart::data_folder;

/// How long a command waits for another one that holds the engine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The root directory of this program.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) root: PathBuf,
    /// The tree of `hosts.toml` files, instead of the system's.
    hosts: Option<PathBuf>,
    /// What every command notes what it does in; open when an engine is.
    journal: OnceLock<Arc<Journal>>,
}

impl Site {
    pub(crate) fn new(root: Option<PathBuf>, hosts: Option<PathBuf>) -> Result<Self> {
        let root = root.map_or_else(data_folder, Ok)?;
        Ok(Self {
            root,
            hosts,
            journal: OnceLock::new(),
        })
    }

    /// The engine, with this machine's mirrors and this user's logins. Another command that holds it is waited for.
    pub(crate) async fn engine(&self) -> Result<Engine> {
        let begun = Instant::now();
        loop {
            let mut builder = Engine::builder(&self.root);
            if let Some(hosts) = &self.hosts {
                builder = builder.hosts(Hosts::new().tree(hosts));
            }
            match builder.open().await {
                Err(error) if error.kind() == ErrorKind::Locked && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => {
                    let engine = outcome.with_context(|| format!("opening {}", self.root.display()))?;
                    // Not before: the directory is the engine's to make.
                    let sinks = vec![self.journal()? as Arc<dyn EventSink>];
                    return Ok(Engine { sinks, ..engine });
                }
            }
        }
    }

    pub(crate) fn journal_directory(&self) -> PathBuf {
        self.root.join("events")
    }

    fn journal(&self) -> Result<Arc<Journal>> {
        if let Some(journal) = self.journal.get() {
            return Ok(journal.clone());
        }
        let options = JournalOptions::default().file_bytes(4 << 20).keep_bytes(64 << 20);
        let journal = Arc::new(Journal::open(self.journal_directory(), options)?);
        Ok(self.journal.get_or_init(|| journal).clone())
    }

    /// Notes what came of a request that goes past the engine.
    pub(crate) fn note(&self, request: &str, target: &str, outcome: &Result<()>) {
        // Where no engine ever was, there is nothing that could be asked for.
        if !self.root.is_dir() {
            return;
        }
        let outcome = match outcome {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let kind = EventKind::Request {
            request: request.to_owned(),
            target: target.to_owned(),
            outcome,
        };
        match self.journal() {
            Ok(journal) => journal.emit(Event::now(DEFAULT_NAMESPACE, kind).by(longshore::this_program())),
            Err(error) => eprintln!("longshore: {error:#}"),
        }
    }

    /// Waits until all that happened is in the journal.
    pub(crate) fn flush_journal(&self) {
        if let Some(Err(error)) = self.journal.get().map(|journal| journal.flush()) {
            eprintln!("longshore: {:#}", anyhow::Error::from(error));
        }
    }

    /// The executor alone, which many processes may use at once.
    pub(crate) fn executor(&self) -> Result<Arc<dyn Executor>> {
        Ok(Arc::new(self.linux_executor()?))
    }

    /// The same, as what it is.
    pub(crate) fn linux_executor(&self) -> Result<LinuxExecutor> {
        Ok(LinuxExecutor::open(self.root.join("state"))?)
    }

    /// The log of a container that runs in the background.
    pub(crate) fn log(&self, id: &ContainerId) -> PathBuf {
        self.root.join("logs").join(format!("{id}.log"))
    }

    /// Removes the log of a container that is gone. One that ran in the foreground has none.
    pub(crate) fn remove_log(&self, id: &str) {
        if let Ok(id) = ContainerId::new(id) {
            let _ = LogFile::new(self.log(&id)).remove();
        }
    }
}

/// An id that nobody has yet, as Docker shows them: twelve hexadecimal digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
