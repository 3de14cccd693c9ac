//! Containers that are being made. A file says so from before the record is written until the container is there, so that what a program leaves that is
//! killed in between is told apart from a container whose state went with a restart of the machine, and whose files somebody may still want.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use longshore_runtime::{ContainerId, DeleteMode};

use crate::create::blocking;
use crate::{Container, Engine, Error, Result};

/// Where these files are, below the engine's root.
const DIRECTORY: &str = "making";

/// A container being made.
#[derive(Debug)]
#[must_use = "it is being made until `end`"]
pub(crate) struct Making {
    /// `None` when another call makes one of that id at this moment, and the file is that one's.
    path: Option<PathBuf>,
}

impl Making {
    pub(crate) async fn begin(engine: &Engine, id: &str) -> Result<Self> {
        let directory = engine.root.join(DIRECTORY);
        let path = directory.join(format!("{}+{id}", engine.namespace));
        let file = path.clone();
        let made = blocking(move || {
            std::fs::create_dir_all(directory)?;
            std::fs::File::create_new(file).map(drop)
        });
        match made.await {
            Ok(()) => Ok(Self { path: Some(path) }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { path: None }),
            Err(source) => Err(Error::Io {
                doing: "noting that a container is being made in",
                path,
                source,
            }),
        }
    }

    pub(crate) async fn end(self) {
        if let Some(path) = self.path {
            // One that stays is found to be whole at the next open.
            let _ = blocking(move || std::fs::remove_file(path)).await;
        }
    }
}

impl Engine {
    /// Takes back containers that were being made when a program was killed, and that the executor knows nothing of.
    pub(crate) async fn recover_half_made(&self) -> Result<()> {
        let directory = self.root.join(DIRECTORY);
        let listed = directory.clone();
        let paths = blocking(move || list(&listed)).await.map_err(|source| Error::Io {
            doing: "listing containers being made in",
            path: directory,
            source,
        })?;
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Neither a namespace nor an id has a `+`.
            if let Some((namespace, id)) = name.split_once('+')
                && let Ok(id) = ContainerId::new(id)
            {
                let engine = Self {
                    namespace: namespace.to_owned(),
                    ..self.clone()
                };
                let container = Container::new(engine, id)?;
                let state = self.executor.state(container.task()).await;
                if state.is_err_and(|error| error.kind() == longshore_runtime::ErrorKind::NotFound) {
                    tracing::info!(container = container.id(), "removing a container that was never whole");
                    container.delete(DeleteMode::Force).await?;
                }
            }
            let _ = blocking(move || std::fs::remove_file(path)).await;
        }
        Ok(())
    }
}

/// The files in a directory, which may be missing.
pub(crate) fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}
