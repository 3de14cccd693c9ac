//! Changes to a container's record.

use longshore_events::EventKind;
use longshore_metadata::{Labels, MetadataStoreExt};

use crate::error::At;
use crate::{Container, Error, Result};

impl Container {
    /// Sets a label of its record, or removes it (`None`).
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist; [`Invalid`](crate::ErrorKind::Invalid) for a label that is none, and for one of those by which
    /// collections know what the container needs (`containerd.io/gc.`), which are the engine's.
    pub async fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        if key.starts_with("containerd.io/gc.") {
            return Err(Error::Invalid {
                what: format!("label '{key}' of container '{}'", self.id()),
                reason: "what the container needs is noted there; choose another name".to_owned(),
            });
        }
        let doing = format!("labelling container '{}'", self.id());
        let change = |labels: &mut Labels, _: &mut _| match value {
            Some(value) => drop(labels.insert(key.to_owned(), value.to_owned())),
            None => drop(labels.remove(key)),
        };
        self.change(doing, change).await
    }

    /// Its labels.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn labels(&self) -> Result<Labels> {
        let entry = self.engine.metadata.container(&self.engine.namespace, self.id()).await;
        let entry = entry.at(format!("looking up container '{}'", self.id()))?;
        let entry = entry.ok_or_else(|| Error::NoSuchContainer(self.id().to_owned()))?;
        Ok(entry.labels)
    }

    /// Changes its record and tells so.
    pub(crate) async fn change(
        &self,
        doing: String,
        mut change: impl FnMut(&mut Labels, &mut longshore_metadata::Container) + Send,
    ) -> Result<()> {
        let mut told = None;
        let noting = |labels: &mut Labels, record: &mut longshore_metadata::Container| {
            change(labels, record);
            told = Some(EventKind::ContainerUpdate {
                id: self.id().to_owned(),
                image: record.image.clone(),
                labels: labels.clone(),
                snapshot_key: record.snapshot.clone(),
            });
        };
        let (metadata, namespace) = (&self.engine.metadata, &self.engine.namespace);
        metadata.modify(namespace, self.id(), noting).await.at(doing)?;
        if let Some(told) = told {
            self.engine.emitter().emit(told);
        }
        Ok(())
    }
}
