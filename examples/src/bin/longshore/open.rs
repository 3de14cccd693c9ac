//! Where this program's images and containers are, and opening the engine there.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use longshore::distribution::{DockerConfig, Hosts, RegistryClient};
use longshore::events::{EventSink, Journal, JournalOptions};
use longshore::runtime::{ContainerId, Executor, LinuxExecutor, LogFile};
use longshore::{Engine, ErrorKind};
use longshore_examples::quickstart::data_folder;

/// How long a command waits for another one that holds the engine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The root directory of this program.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) root: PathBuf,
    /// The tree of `hosts.toml` files.
    hosts: PathBuf,
    /// What every command notes what it does in; open when an engine is.
    journal: OnceLock<Arc<Journal>>,
}

impl Site {
    pub(crate) fn new(root: Option<PathBuf>, hosts: PathBuf) -> Result<Self> {
        let root = root.map_or_else(data_folder, Ok)?;
        Ok(Self {
            root,
            hosts,
            journal: OnceLock::new(),
        })
    }

    /// The engine. Another command that holds it is waited for.
    pub(crate) async fn engine(&self) -> Result<Engine> {
        let begun = Instant::now();
        loop {
            match Engine::open(&self.root).await {
                Err(error) if error.kind() == ErrorKind::Locked && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => {
                    let engine = outcome.with_context(|| format!("opening {}", self.root.display()))?;
                    let sinks = vec![self.journal()? as Arc<dyn EventSink>];
                    let client = self.client()?;
                    return Ok(Engine {
                        sinks,
                        resolver: client.clone(),
                        fetcher: client.clone(),
                        pusher: client,
                        ..engine
                    });
                }
            }
        }
    }

    /// The client of registries, with this machine's mirrors and this user's logins.
    fn client(&self) -> Result<Arc<RegistryClient>> {
        let client = RegistryClient::builder()
            .hosts(Hosts::new().tree(&self.hosts))
            .credentials(Arc::new(DockerConfig::from_env()));
        Ok(Arc::new(client.build()?))
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

    /// Waits until all that happened is in the journal.
    pub(crate) fn flush_journal(&self) {
        if let Some(Err(error)) = self.journal.get().map(|journal| journal.flush()) {
            eprintln!("longshore: {:#}", anyhow::Error::from(error));
        }
    }

    /// The executor alone, which many processes may use at once.
    pub(crate) fn executor(&self) -> Result<Arc<dyn Executor>> {
        Ok(Arc::new(LinuxExecutor::open(self.root.join("state"))?))
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
