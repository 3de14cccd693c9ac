//! Tenants by name.

use std::collections::BTreeMap;

use longshore_events::EventKind;
use longshore_metadata::{Batch, Key, MetadataStoreExt, Value};

use crate::error::At;
use crate::observe::Emitter;
use crate::{Engine, Result};

impl Engine {
    /// The namespaces that exist, by a record of their own or because something is in them; ordered.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        self.metadata.namespaces().await.at("listing namespaces")
    }

    /// Records a namespace. One that is not recorded can be worked in all the same: an engine with its name is enough.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists); [`Invalid`](crate::ErrorKind::Invalid) for a bad name or label.
    pub async fn create_namespace(&self, name: &str, labels: BTreeMap<String, String>) -> Result<()> {
        let batch = Batch::new().create(Key::namespace(name), labels.clone(), Value::Namespace);
        let created = self.metadata.apply(batch).await;
        created.at(format!("creating namespace '{name}'"))?;
        let name = name.to_owned();
        self.emitter_of(&name).emit(EventKind::NamespaceCreate { name, labels });
        Ok(())
    }

    /// Sets all labels of a namespace, and records it if it was not.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a bad name or label.
    pub async fn label_namespace(&self, name: &str, labels: BTreeMap<String, String>) -> Result<()> {
        let doing = || format!("labelling namespace '{name}'");
        let known = self.metadata.namespace_labels(name).await.at(doing())?;
        if known.as_ref() == Some(&labels) {
            return Ok(());
        }
        let labelled = self.metadata.label_namespace(name, labels.clone()).await;
        labelled.at(doing())?;
        let (emitter, name) = (self.emitter_of(name), name.to_owned());
        emitter.emit(match known {
            Some(_) => EventKind::NamespaceUpdate { name, labels },
            None => EventKind::NamespaceCreate { name, labels },
        });
        Ok(())
    }

    /// The labels of a namespace; `None` when it is not recorded.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn namespace_labels(&self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        let labels = self.metadata.namespace_labels(name).await;
        labels.at(format!("looking up namespace '{name}'"))
    }

    /// Forgets a namespace in which there is nothing any more.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) while anything is in it, which the error names.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let deleted = self.metadata.delete_namespace(name).await;
        deleted.at(format!("deleting namespace '{name}'"))?;
        let name = name.to_owned();
        self.emitter_of(&name).emit(EventKind::NamespaceDelete { name });
        Ok(())
    }

    /// What happens to a namespace happens in it, as with containerd.
    fn emitter_of(&self, namespace: &str) -> Emitter {
        Emitter {
            namespace: namespace.to_owned(),
            ..self.emitter()
        }
    }
}
