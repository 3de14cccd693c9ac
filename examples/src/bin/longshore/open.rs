//! Where this program's images and containers are, and opening the engine there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use longshore::runtime::{ContainerId, Executor, LinuxExecutor};
use longshore::{Engine, ErrorKind};
use longshore_examples::quickstart::data_folder;

/// How long a command waits for another one that holds the engine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The root directory of this program.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) root: PathBuf,
}

impl Site {
    pub(crate) fn new(root: Option<PathBuf>) -> Result<Self> {
        let root = root.map_or_else(data_folder, Ok)?;
        Ok(Self { root })
    }

    /// The engine. Another command that holds it is waited for.
    pub(crate) async fn engine(&self) -> Result<Engine> {
        let begun = Instant::now();
        loop {
            match Engine::open(&self.root).await {
                Err(error) if error.kind() == ErrorKind::Locked && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return outcome.with_context(|| format!("opening {}", self.root.display())),
            }
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
            let _ = std::fs::remove_file(self.log(&id));
        }
    }
}

/// An id that nobody has yet, as Docker shows them: twelve hexadecimal digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
