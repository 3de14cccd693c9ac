//! Containers that are being made. What a program leaves that is killed in between is told apart by a note from a container whose state went with a restart of the
//! machine, and whose files somebody may still want.

use longshore_runtime::{DeleteMode, ErrorKind};

use crate::notes::Notes;
use crate::{Engine, Result};

/// From before a container's record is written until the container is there.
pub(crate) const MAKING: Notes = Notes {
    directory: "making",
    noting: "noting that a container is being made in",
    listing: "listing containers being made in",
};

impl Engine {
    /// Takes back containers that were being made when a program was killed, and that the executor knows nothing of.
    pub(crate) async fn recover_half_made(&self) -> Result<()> {
        for (note, container) in MAKING.left(self).await? {
            if let Some(container) = container {
                let state = self.executor.state(container.task()).await;
                if state.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                    tracing::info!(container = container.id(), "removing a container that was never whole");
                    container.delete(DeleteMode::Force).await?;
                }
            }
            note.remove().await;
        }
        Ok(())
    }
}
