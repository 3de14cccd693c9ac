use std::sync::Arc;

use longshore_metadata::{Kind, Value};
use longshore_runtime::{ContainerId, DeleteMode};

use crate::error::At;
use crate::{Container, Engine, Result};

/// The fact on a container's record that says that it dies with the program that made it.
pub(crate) const TIED: &str = "longshore.tied";

impl Engine {
    /// Takes back what a program that was killed left behind: its tied containers, of which the kernel has killed the processes but whose
    /// cgroups, snapshots, bundles and records are still there.
    pub(crate) async fn recover(&self) -> Result<()> {
        self.snapshotter.cleanup().await.at("cleaning up snapshots")?;
        let unpacker = longshore_bundle::Unpacker::new(self.content.clone(), self.snapshotter.clone());
        unpacker.remove_leftovers().await.at("removing half-unpacked layers")?;
        // One that was killed in the middle keeps nobody waiting.
        self.collector().lift().await.at("ending an interrupted collection")?;
        self.recover_half_made().await?;
        self.recover_paused().await?;
        for namespace in self.metadata.namespaces().await.at("listing namespaces")? {
            let engine = Self {
                namespace: namespace.clone(),
                ..self.clone()
            };
            let records = self
                .metadata
                .list(&namespace, Kind::Container)
                .await
                .at("listing containers")?;
            for record in records {
                let Value::Container(container) = &record.value else {
                    continue;
                };
                let tied = container.extensions.get(TIED).and_then(serde_json::Value::as_bool) == Some(true);
                let Ok(id) = ContainerId::new(&record.key.id) else {
                    continue;
                };
                if tied {
                    tracing::info!(container = %id, "removing what a killed program left behind");
                    Container::new(engine.clone(), id)?.delete(DeleteMode::Force).await?;
                }
            }
        }
        Ok(())
    }

    /// The containers of this engine's namespace, ordered by id.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn containers(&self) -> Result<Vec<Container>> {
        let records = self
            .metadata
            .list(&self.namespace, Kind::Container)
            .await
            .at("listing containers")?;
        let engine = Arc::new(self.clone());
        records
            .into_iter()
            .filter_map(|record| ContainerId::new(record.key.id).ok())
            .map(|id| Container::new(Arc::clone(&engine), id))
            .collect()
    }

    /// A container by its id.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no record of it.
    pub async fn find_container(&self, id: &str) -> Result<Container> {
        let key = longshore_metadata::Key::container(&self.namespace, id);
        let found = self
            .metadata
            .get(&key)
            .await
            .at(format!("looking up container '{id}'"))?;
        match (found, ContainerId::new(id)) {
            (Some(_), Ok(id)) => Container::new(self.clone(), id),
            _ => Err(crate::Error::NoSuchContainer(id.to_owned())),
        }
    }
}
