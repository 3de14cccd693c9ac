//! A container that is paused while an image is made of it. A file says so meanwhile, so that one whose program was killed then runs on at the next open.

use std::path::PathBuf;

use longshore_runtime::{ContainerId, Status};

use crate::create::blocking;
use crate::making::list;
use crate::{Container, Engine, Error, Result};

/// Where these files are, below the engine's root.
const DIRECTORY: &str = "pausing";

/// Notes that a container is going to be paused.
pub(super) async fn note(container: &Container) -> Result<PathBuf> {
    let engine = &container.engine;
    let directory = engine.root.join(DIRECTORY);
    let path = directory.join(format!("{}+{}", engine.namespace, container.id()));
    let file = path.clone();
    let noted = blocking(move || {
        std::fs::create_dir_all(directory)?;
        std::fs::File::create(file).map(drop)
    });
    match noted.await {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::Io {
            doing: "noting that a container is paused in",
            path,
            source,
        }),
    }
}

/// The container runs on.
pub(super) async fn forget(path: PathBuf) {
    // One that stays is found to run at the next open.
    let _ = blocking(move || std::fs::remove_file(path)).await;
}

impl Engine {
    /// Lets containers run on that were paused when a program was killed in a commit.
    pub(crate) async fn recover_paused(&self) -> Result<()> {
        let directory = self.root.join(DIRECTORY);
        let listed = directory.clone();
        let paths = blocking(move || list(&listed)).await.map_err(|source| Error::Io {
            doing: "listing paused containers in",
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
                let is_paused = |state: longshore_runtime::State| state.status == Status::Paused;
                if container.state().await.is_ok_and(is_paused) {
                    tracing::info!(
                        container = container.id(),
                        "resuming a container that a commit had paused"
                    );
                    container.resume().await?;
                }
            }
            forget(path).await;
        }
        Ok(())
    }
}
