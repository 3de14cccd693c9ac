//! A container that is paused while an image is made of it. One whose program was killed then runs on at the next open.

use longshore_runtime::Status;

use crate::notes::Notes;
use crate::{Engine, Result};

/// While a container is paused for a commit.
pub(super) const PAUSING: Notes = Notes {
    directory: "pausing",
    noting: "noting that a container is paused in",
    listing: "listing paused containers in",
};

impl Engine {
    /// Lets containers run on that were paused when a program was killed in a commit.
    pub(crate) async fn recover_paused(&self) -> Result<()> {
        for (note, container) in PAUSING.left(self).await? {
            if let Some(container) = container {
                let state = container.state().await;
                if state.is_ok_and(|state| state.status == Status::Paused) {
                    tracing::info!(
                        container = container.id(),
                        "resuming a container that a commit had paused"
                    );
                    container.resume().await?;
                }
            }
            note.remove().await;
        }
        Ok(())
    }
}
